"""The soak of `make soak-audit`, small: a few thousand events through kill -9 of both sides."""

from tests.soak.audit import Soak


async def test_events_survive_the_killing_of_both_sides(tmp_path):
    """Nothing lost, nothing doubled, every life closed, chain and proofs verify (A1 to A6)."""
    outcome = await Soak(tmp_path, 4000, 3, 1.5).run()
    assert outcome.committed >= 4000
    assert outcome.events >= outcome.committed
    assert outcome.checkpoints > 0
