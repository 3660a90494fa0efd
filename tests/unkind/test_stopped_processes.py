"""Processes that are stopped, not dead: sockets stay open, nothing is said (SIGSTOP). Who refuses, and what heals."""

import pytest
from tests.e2e.conftest import eventually
from tests.unkind.real_house import SIDECAR, SUBJECT, Caller, complete_log, settled_log, staged, stopped

from leasehold.errors import Unavailable
from leasehold.operators import selector

pytestmark = pytest.mark.timeout(300)
AUTHORITY_SECONDS = 3


@pytest.fixture(scope="module")
def house():
    """One sidecar, whose authority lapses soon."""
    with staged(chunk_ms=20, authority_seconds=AUTHORITY_SECONDS) as house:
        yield house


def test_r3_a_stopped_collector_stops_new_work_but_no_stream_and_loses_no_event(house):
    """Past its authority a sidecar refuses and says why; what was admitted goes on; all is told later."""
    with house.client() as client:
        lease = client.acquire(provider="anthropic", budget="0.05", ttl="5m", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        stream = caller.stream(600)
        with stopped(house, "collector"):
            assert eventually(lambda: caller.call() == "CENTRE_UNREACHABLE")
            served = len(house.served())
            with pytest.raises(Unavailable) as refused:
                client.acquire(provider="anthropic", budget="0.01", ttl="5m", renew=False)
            assert refused.value.reason == "CENTRE_UNREACHABLE"
            before = stream.chunks
            assert eventually(lambda: stream.chunks > before or stream.ended)
            assert {caller.call() for _ in range(5)} == {"CENTRE_UNREACHABLE"}
            assert stream.end() == "finished"
            assert len(house.served()) - served == 1, "the stream, and nothing that was refused"
        assert eventually(lambda: caller.call() == "taken")
        usage = eventually(lambda: (mine := lease.usage()[0]).held == 0 and mine)
        lease.release()

    def told():
        events = complete_log(house, lease=lease.name)
        return events if events[-1]["type"] == "lease.released" else None

    events = eventually(told)
    charged = sum(one["details"]["charged"]["cost_micro_usd"] for one in events if one["type"] == "call.settled")
    refusals = [one for one in events if one.get("reason") == "CENTRE_UNREACHABLE"]
    assert charged == usage.settled > 0
    assert refusals, "who was refused without the centre is told once it is back"


def test_r3_r4_a_sidecar_that_was_stopped_through_a_revocation_admits_nothing_after_it(house):
    """It is a laggard, then counts as refusing by itself; woken, it refuses at once, then because of the revocation."""
    with house.client(name="sleeper", subject=SUBJECT) as client, house.operator() as operator:
        lease = client.acquire(provider="anthropic", budget="0.05", ttl="5m", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        stream = caller.stream(4000)
        with stopped(house, SIDECAR):
            progress = operator.revoke(selector(subject=SUBJECT), note="drill").progress
            assert not progress.complete
            told = list(operator.watch_progress(progress.entry.name, 60))
            [row] = told[-1].sidecars
            assert told[-1].complete
            assert row.applied_epoch < progress.entry.epoch, "complete because it refuses, not because it said so"
        reasons = []
        assert eventually(lambda: reasons.append(caller.call()) or reasons[-1] == "LEASE_REVOKED")
        assert set(reasons) <= {"CENTRE_UNREACHABLE", "LEASE_REVOKED"}, "revoked means revoked, whoever slept"
        assert stream.end() != "finished"
        last = eventually(lambda: (now := operator.progress(progress.entry.name)).sidecars[0].calls_cut and now)
        assert last.sidecars[0].applied_epoch >= progress.entry.epoch
        lease.abandon()

    def told_all():
        events = complete_log(house, lease=lease.name)
        return events if sum(one["type"] == "call.admitted" for one in events) == settled(events) else None

    def settled(events):
        return sum(one["type"] == "call.settled" for one in events)

    assert eventually(told_all)


def test_b5_a1_a_provider_that_is_stopped_costs_its_hold_and_is_called_again_once_it_runs(house):
    """A call without an answer is charged as sent, one stream goes on where it was; all is told."""
    with house.client(name="provider", subject=f"{SUBJECT}-provider") as client:
        lease = client.acquire(provider="anthropic", budget="0.05", ttl="10m", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        stream = caller.stream(200)
        with stopped(house, "stand-in"):
            caller.give_up(2.0)
        assert stream.end() == "finished"
        assert eventually(lambda: caller.call() == "taken")
        usage = eventually(lambda: (mine := lease.usage()[0]).held == 0 and mine)
        caller.close()
        lease.release()
    events = eventually(lambda: settled_log(house, lease=lease.name))
    ends = [event for event in events if event["type"] == "call.settled"]
    costs = [end["details"]["charged"].get("cost_micro_usd", 0) for end in ends]
    assert len(ends) == 4
    assert all(costs), "the one without an answer is charged too"
    assert sum(costs) == usage.settled
