"""The soak of `make soak-audit`, small: a few thousand events through kill -9 of both sides."""

import asyncio

import pytest
from tests.soak.audit import Soak, killed


async def test_events_survive_the_killing_of_both_sides(tmp_path):
    """Nothing lost, nothing doubled, every life closed, chain and proofs verify (A1 to A6)."""
    outcome = await Soak(tmp_path, 4000, 3, 1.5).run()
    assert outcome.committed >= 4000
    assert outcome.events >= outcome.committed
    assert outcome.checkpoints > 0


async def test_a_process_is_gone_also_for_who_is_cancelled_while_it_ends():
    """The checks after the soak open what the last collector had locked: it may not live on for another moment."""
    process = await asyncio.create_subprocess_exec("sleep", "60")
    ending = asyncio.create_task(killed(process))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert process.returncode == -9
