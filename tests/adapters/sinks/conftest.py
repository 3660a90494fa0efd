"""Every test of this room runs on uvloop, as the broker's processes do."""

from tests.fakes.loops import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
