"""Wall clocks that are set by hours, forwards and backwards, under a running sidecar and a running collector.

Leases, authority and open sessions are counted on a clock that nobody sets; tokens and schedules are held against the
wall clock. Skipped, with the reason, where libfaketime does not work.
"""

import os
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import eventually
from tests.fakes.rotating_provider import rotating_provider
from tests.fakes.rotation_stage import KEY, LIMITS, RotationStage
from tests.unkind.faked_clock import FakedClock, tidy, why_not
from tests.unkind.real_house import SIDECAR, SUBJECT, Caller, settled_log, staged

from leasehold.errors import LeaseholdError
from leasehold.operators import selector
from leasehold.v1 import key_service_pb2 as pb
from leasehold_broker.demo.stage import Stage

pytestmark = pytest.mark.timeout(300)
AUTHORITY_SECONDS = 5
HOURS = 5
ALL = os.environ.get("CLOCKS") == "all"
"""Both ways at both sides, and the schedule, which is looked at twice a minute, are `make unkind`."""
LIVES = [(25, 1), (0, 1), (25, 1), (51, 2)]
"""Of a collector: hours that its clock is off, and rotations by then."""
ROTATED_SECONDS_MAX = 120
LOOK_SECONDS = 1.5
"""A schedule is looked at as soon as its collector serves."""


class ClockedStage(Stage):
    """Sidecar and collector have a wall clock each."""

    def __init__(self, root: Path, **settings) -> None:
        """All clocks are right."""
        super().__init__(root, **settings)
        self._clocks = {name: FakedClock(root / f"{name}-home") for name in (SIDECAR, "collector")}

    def clock(self, name: str) -> FakedClock:
        """Of one of them."""
        return self._clocks[name]

    async def start(self, name: str) -> None:
        """With its clock."""
        what = "collector" if name == "collector" else "sidecar"
        command = self.clock(name).broker(what, "--config", str(self.layout.config(name)))
        running = await self.processes.start(name, command)
        self._serving[name] = running
        await self.processes.until_healthy(running, self.layout.socket(name))


@pytest.fixture(scope="module", autouse=True)
def possible(tmp_path_factory):
    """Nothing is tested where clocks cannot be faked."""
    tidy()
    if why := why_not(tmp_path_factory.mktemp("clock")):
        pytest.skip(why)
    yield
    tidy()


@pytest.fixture(scope="module")
def house():
    """One sidecar and its centre."""
    with staged(ClockedStage, chunk_ms=20, authority_seconds=AUTHORITY_SECONDS) as house:
        yield house


@pytest.fixture
def clocks(house):
    """Both, right again in the end."""
    clocks = {name: house.stage.clock(name) for name in (SIDECAR, "collector")}
    yield clocks
    for clock in clocks.values():
        clock.set(0)


def why_refused(house, client):
    """What the log says why this agent's token was not taken; the agent itself is not told."""
    with pytest.raises(LeaseholdError) as refused:
        client.acquire(provider="anthropic", ttl="1m", renew=False)
    assert refused.value.reason == "IDENTITY_REJECTED"
    with house.operator() as operator:
        wanted = refused.value.request_id
        found = eventually(
            lambda: [one.event() for one in operator.events() if one.event().get("request_id") == wanted]
        )
    return found[0]["reason"]


@pytest.mark.parametrize("hours", [HOURS, -HOURS] if ALL else [-HOURS])
def test_r2_a_lease_lives_as_long_as_granted_whatever_the_wall_clock_of_its_sidecar_says(house, clocks, hours):
    """Set while leases live: the long one goes on, the short one ends in its time, tokens go by the new clock."""
    subject = f"{SUBJECT}-lease{hours}"
    with house.client(name=f"lease{hours}", subject=subject) as client:
        short = client.acquire(provider="anthropic", budget="0.05", ttl="20s", renew=False)
        long = client.acquire(provider="anthropic", budget="0.05", ttl="5m", renew=False)
        brief, caller = Caller(short), Caller(long)
        assert eventually(lambda: caller.call() == brief.call() == "taken")
        began = time.monotonic()
        clocks[SIDECAR].set(hours)
        assert caller.call() == "taken"
        assert why_refused(house, client) == ("JWT_EXPIRED" if hours > 0 else "JWT_NOT_YET_VALID")
        assert eventually(lambda: brief.call() == "LEASE_EXPIRED")
        assert time.monotonic() - began < 3600, "by the clock that nobody sets"
        assert caller.call() == "taken"
        clocks[SIDECAR].set(0)
        client.acquire(provider="anthropic", ttl="1m", renew=False).release()
        assert caller.call() == "taken"
        assert brief.call() == "LEASE_EXPIRED"
        brief.close()
        caller.close()
        long.release()
    events = eventually(lambda: settled_log(house, lease=long.name))
    assert sum(event["type"] == "call.settled" for event in events) >= 4


@pytest.mark.parametrize("hours", [HOURS, -HOURS] if ALL else [HOURS])
def test_r3_r4_authority_and_revocation_hold_whatever_the_wall_clock_of_the_centre_says(house, clocks, hours):
    """Set under open sessions: nobody loses its authority, none is kept beyond it, and a revocation is complete."""
    subject = f"{SUBJECT}-centre{hours}"
    with house.client(name=f"centre{hours}", subject=subject) as client, house.operator() as operator:
        lease = client.acquire(provider="anthropic", budget="0.05", ttl="5m", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        clocks["collector"].set(hours)
        ends = set()
        began = time.monotonic()
        while time.monotonic() - began < 1.5 * AUTHORITY_SECONDS:
            ends.add(caller.call())
            time.sleep(0.1)
        assert ends == {"taken"}, "each heartbeat is answered as before"
        progress = operator.revoke(selector(subject=subject), note="drill").progress
        assert list(operator.watch_progress(progress.entry.name, 60))[-1].complete
        assert caller.call() == "LEASE_REVOKED"
        lease.abandon()
    assert eventually(lambda: settled_log(house, lease=lease.name))


def test_r3_a_centre_whose_clock_is_wrong_takes_no_new_session_and_the_sidecar_refuses_then_heals(house, clocks):
    """Its own token looks expired to the centre: no session, so no authority and no call; set right, all goes on."""
    with house.client(name="session", subject=f"{SUBJECT}-session") as client:
        lease = client.acquire(provider="anthropic", budget="0.05", ttl="5m", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        house.wait_for(house.stage.crash("collector"))
        clocks["collector"].set(HOURS)
        house.wait_for(house.stage.start("collector"))
        log = house.stage.layout.logs / "collector.log"
        assert eventually(lambda: "JWT_EXPIRED" in log.read_text())
        assert eventually(lambda: caller.call() == "CENTRE_UNREACHABLE")
        served = len(house.served())
        assert {caller.call() for _ in range(3)} == {"CENTRE_UNREACHABLE"}
        assert len(house.served()) == served
        clocks["collector"].set(0)
        assert eventually(lambda: caller.call() == "taken")
        caller.close()
        lease.release()
    assert eventually(lambda: settled_log(house, lease=lease.name))


@pytest.mark.skipif(not ALL, reason="make unkind")
def test_a_schedule_of_rotations_fires_once_for_each_time_whatever_the_clock_is_set_to(tmp_path_factory):
    """A day on it is due; set back and forth over restarts, the same day is not due again; another day on it is."""
    folder = tmp_path_factory.mktemp("schedule")
    rotation = f"every_days = 1\njitter_seconds = 0\n{LIMITS}"
    with rotating_provider() as (account, origin):
        stage = RotationStage(folder, origin, rotation)
        clock = FakedClock(folder / "centre-home")
        for off_hours, rotations in LIVES:
            clock.set(off_hours)
            with stage.process("collector", clock.broker), stage.custodian() as client:
                done = [pb.ROTATION_STATE_DONE] * rotations
                assert eventually(lambda done=done, client=client: [each.state for each in client.rotations()] == done)
                time.sleep(LOOK_SECONDS)
                assert [each.state for each in client.rotations()] == done, f"{off_hours} hours on"
        assert account.minted == LIVES[-1][1]


@pytest.mark.skipif(not ALL, reason="make unkind")
def test_a_rotation_during_which_the_clock_is_set_ends_once_and_leaves_one_key(tmp_path_factory):
    """Set by hours forwards, backwards and right again once its key is made: done, and the key before is dead."""
    with rotating_provider() as (account, origin):
        stage = RotationStage(tmp_path_factory.mktemp("rotation"), origin)
        clock = FakedClock(stage.root / "centre-home")
        with stage.process("collector", clock.broker), stage.custodian() as client:
            for number, off_hours in enumerate((HOURS, -HOURS, 0), 1):
                asked = client.rotate(KEY)
                assert eventually(lambda number=number: account.minted == number)
                clock.set(off_hours)
                assert list(client.watch(asked.name, ROTATED_SECONDS_MAX))[-1].state == pb.ROTATION_STATE_DONE
                assert [key.value for key in account.alive()] == [stage.serving_value()]
            assert account.minted == len(list(client.rotations()))
