"""A short run of every attack, without clocks: the agent is served throughout, and key fetches stay few."""

from dataclasses import replace

import pytest
from tests.bench.under_attack import KINDS, Cost, run

pytestmark = [pytest.mark.timeout(180)]


async def test_the_agent_is_served_under_every_attack():
    """All its calls and RPCs succeed while a neighbour floods both doors; memory and fetches stay within their aims."""
    costs = await run(1.5, 1, KINDS, pin=False)
    assert [cost.kind for cost in costs] == list(KINDS)
    assert all(cost.sent > 0 for cost in costs)
    assert [word for cost in costs for word in cost.missed() if "p99" not in word] == []


def test_a_missed_aim_and_a_weak_attack_are_said():
    """The verdict names each aim that was missed, and an attack that was less than it is said to be."""
    good = Cost("tokens", 16_000, 8, 9.0, (1, 1, 2, 3.9), (1, 1, 2, 4), 50.0, 0.1, 2.0)
    assert good.missed() + good.too_weak() == []
    bad = replace(good, calls=(1, 1, 2, 4.1), rpcs=(1, 1, 1, 9), grown_mib=51.0, fetches_per_minute=3.0)
    assert bad.missed() == ["p99 of calls 2.0 times", "p99 of RPCs 9.0 times", "51 MiB more", "3 fetches a minute"]
    noisy = replace(bad, grown_mib=1.0, fetches_per_minute=1.0, noise=1.6).missed()
    assert noisy[-1] == "but without any attack p99 varied 1.6 times: this machine is not quiet"
    assert replace(good, sent=10_000).too_weak() == ["only 1111 a second"]
    assert replace(good, kind="idle", sent=999).too_weak() == ["only 999 sent"]
    assert replace(good, kind="resets", sent=9_999).too_weak() == ["only 9999 sent"]
    assert replace(good, kind="slow", connected=499).too_weak() == ["only 499 connections"]
