"""How much of one kind of work is done in a turn of the loop, and that all of it is done."""

import asyncio

import pytest

from leasehold_broker.flows.loop_share import LoopShare


def held(each_turn: int) -> LoopShare:
    """A share whose turns come when the test says so."""
    share = LoopShare(each_turn)
    share._next = asyncio.get_running_loop().call_later(3600, lambda: None)
    return share


async def waiting(share: LoopShare, count: int) -> None:
    """So many wait."""
    async with asyncio.timeout(60):
        while len(share._waiting) != count:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


async def test_what_is_more_than_a_share_waits_for_the_next_turn_in_order():
    """A responder's call has its turn between them."""
    share, done = held(200), list[int]()

    async def work(number: int) -> None:
        await share.take(100)
        done.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(7)]
    await waiting(share, 5)
    for left in (3, 1, 0):
        share._turn()
        assert len(share._waiting) == left
    await asyncio.gather(*tasks)
    assert done == list(range(7))


async def test_turns_come_by_themselves_until_nobody_waits():
    """More than fits many turns is all done."""
    share = LoopShare(200)
    async with asyncio.timeout(60):
        await asyncio.gather(*(share.take(150) for _ in range(100)))
    assert not share._waiting


async def test_a_piece_that_is_more_than_a_share_is_done_all_the_same():
    """One at least in each turn."""
    share = held(10)
    await share.take(1000)
    tasks = [asyncio.create_task(share.take(1000)) for _ in range(2)]
    await waiting(share, 2)
    share._turn()
    assert len(share._waiting) == 1
    share._turn()
    await asyncio.gather(*tasks)


async def test_one_that_is_gone_takes_no_share():
    """Who waits behind it has its place."""
    share = held(1)
    await share.take(1)
    gone, stays = asyncio.create_task(share.take(1)), asyncio.create_task(share.take(1))
    await waiting(share, 2)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    share._turn()
    await stays
    assert not share._waiting
