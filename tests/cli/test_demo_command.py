"""How the demo command ends."""

import asyncio

import pytest

from leasehold_broker.cli.demo import _until_told
from leasehold_broker.demo.processes import DemoFailedError


async def test_a_failure_among_things_done_at_once_is_told_in_its_own_words():
    """Two sidecars start at the same time; the one that does not start is named, without a traceback."""

    async def fails():
        raise DemoFailedError("sidecar-b did not serve")

    async def both():
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(asyncio.sleep(60))

    with pytest.raises(DemoFailedError, match="sidecar-b did not serve"):
        await _until_told(both())


async def test_a_fault_of_another_kind_stays_whole():
    """What nobody foresaw keeps its group and its traceback."""

    async def breaks():
        raise ExceptionGroup("two", [KeyError("a"), DemoFailedError("b")])

    with pytest.raises(ExceptionGroup, match="two"):
        await _until_told(breaks())
