"""A fresh heart on a store in memory for each test."""

import pytest
from tests.fakes.core import Core
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore


@pytest.fixture
async def core() -> Core:
    """Recovered from an empty disk."""
    clock = ManualClock()
    return await Core(MemoryStateStore(MemoryDisk(), clock), clock).recover()
