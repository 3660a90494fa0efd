"""A short run of every attack, without clocks: the agent is served throughout, and key fetches stay few."""

import pytest
from tests.bench.under_attack import KINDS, run

pytestmark = [pytest.mark.timeout(180)]


async def test_the_agent_is_served_under_every_attack():
    """All its calls and RPCs succeed while a neighbour floods both doors; memory and fetches stay within their aims."""
    costs = await run(1.5, 1, KINDS, pin=False)
    assert [cost.kind for cost in costs] == list(KINDS)
    assert all(int(cost.sent.split()[0]) > 0 for cost in costs)
    assert max(cost.grown_mib for cost in costs) <= 50
    assert max(cost.fetches_per_minute for cost in costs) <= 2
