"""A lease, issued by the real flow."""

import pytest
from tests.fakes.core import Core
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore

from leasehold_broker.domain.lease import Lease


@pytest.fixture
async def core_lease() -> Lease:
    """Live, renewable."""
    clock = ManualClock()
    core = await Core(MemoryStateStore(MemoryDisk(), clock), clock).recover()
    return await core.lease()
