"""Packets that vanish in one direction only, and resets in the middle of a connection: nftables on real processes.

The stage runs in a network namespace of its own: the sidecar's and the provider's connections are on its loopback.
Needs root and nftables; skipped, with the reason, without them.
"""

import os

import pytest
from tests.e2e.conftest import eventually
from tests.unkind.own_network import filtered, own_network, port_of, why_not
from tests.unkind.real_house import SIDECAR, SUBJECT, Caller, settled_log, staged
from tests.unkind.wired_house import WiredStage

from leasehold.operators import selector

WHY_NOT = why_not()
pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
AUTHORITY_SECONDS = 3
PULSES = int(os.environ.get("UNKIND_PULSES", "2"))
"""The whole is `make unkind`."""
GONE = {"CENTRE_UNREACHABLE", "LEASE_REVOKED"}


@pytest.fixture(scope="module")
def house():
    """One sidecar and its centre, over a wire."""
    with own_network(), staged(WiredStage, chunk_ms=20, authority_seconds=AUTHORITY_SECONDS) as house:
        yield house


def settled(events):
    """The ends of its calls."""
    return [event for event in events if event["type"] == "call.settled"]


def cost(end):
    """What it was charged, in micro-USD."""
    return end["details"]["charged"].get("cost_micro_usd", 0)


def breaks(house):
    """How often the sidecar said so far that its connection to the centre broke."""
    return (house.stage.layout.logs / f"{SIDECAR}.log").read_text().count("link to the collector failed")


@pytest.mark.parametrize("direction", ["dport", "sport"])
def test_r2_r3_r4_half_open_to_the_centre_no_call_is_taken_once_the_centre_counts_on_it(house, direction):
    """Only one side hears the other: a revocation is complete when it is in force, whoever is deaf, and all is told."""
    subject = f"{SUBJECT}-{direction}"
    with house.client(name=direction, subject=subject) as client, house.operator() as operator:
        lease = client.acquire(provider="anthropic", budget="0.05", ttl="5m", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        stream = caller.stream(8000)
        with filtered(f"tcp {direction} {house.stage.centre_port} drop"):
            progress = operator.revoke(selector(subject=subject), note="drill").progress
            told = list(operator.watch_progress(progress.entry.name, 60))
            assert told[-1].complete
            served = len(house.served())
            assert {caller.call() for _ in range(5)} <= GONE, "the centre counts on its refusing"
            assert len(house.served()) - served <= 1, "the stream may end meanwhile; what is refused goes nowhere"
        reasons = []
        assert eventually(lambda: reasons.append(caller.call()) or reasons[-1] == "LEASE_REVOKED")
        assert set(reasons) <= GONE
        assert stream.end() != "finished"

        def applied():
            [row] = operator.progress(progress.entry.name).sidecars
            return row.applied_epoch >= progress.entry.epoch and row.calls_cut

        assert eventually(applied)
        lease.abandon()
    events = eventually(lambda: settled_log(house, lease=lease.name))
    assert {event["reason"] for event in events if event["outcome"] == "denied"} <= GONE
    assert [event["details"].get("cut_by") for event in settled(events)][-1] == "LEASE_REVOKED"


def test_a2_a3_a4_resets_in_the_middle_of_shipping_lose_and_double_no_event(house):
    """Each connection to the centre is reset, at either end, in the middle of calls: the log has each call once."""
    port = house.stage.centre_port
    with house.client(name="reset", subject=f"{SUBJECT}-reset") as client:
        lease = client.acquire(provider="anthropic", budget="0.05", ttl="5m", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        outcomes = ["taken"]
        for pulse in range(PULSES):
            direction = ("dport", "sport")[pulse % 2]
            known = breaks(house)
            with filtered(f"tcp {direction} {port} reject with tcp reset"):
                outcomes += [caller.call() for _ in range(3)]
                assert eventually(lambda known=known: breaks(house) > known)
            outcomes += [caller.call() for _ in range(2)]
        assert set(outcomes) <= {"taken", "CENTRE_UNREACHABLE"}
        assert eventually(lambda: outcomes.append(caller.call()) or outcomes[-1] == "taken")
        usage = eventually(lambda: (mine := lease.usage()[0]).held == 0 and mine)
        caller.close()
        lease.release()
    ends = settled(eventually(lambda: settled_log(house, lease=lease.name)))
    assert len(ends) == outcomes.count("taken")
    assert len({end["details"]["call"] for end in ends}) == len(ends)
    assert sum(cost(end) for end in ends) == usage.settled


def test_b5_a1_a_provider_that_resets_or_falls_silent_is_charged_by_what_was_sent(house):
    """A stream that is reset and a call without an answer are charged, what could not connect is not; all is told."""
    origin = port_of(house.stage.origin)
    with house.client(name="upstream", subject=f"{SUBJECT}-upstream") as client:
        lease = client.acquire(provider="anthropic", budget="0.05", ttl="5m", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        stream = caller.stream(8000)
        with filtered(f"tcp dport {origin} reject with tcp reset"):
            assert stream.end() not in {"", "finished"}
            served = len(house.served())
            refused = {caller.call() for _ in range(3)}  # the first may find a connection of the pool
        assert refused == {"UPSTREAM_UNREACHABLE"}
        assert eventually(lambda: caller.call() == "taken")
        with filtered(f"tcp sport {origin} drop"):
            caller.give_up(2.0)
        assert eventually(lambda: caller.call() == "taken")
        usage = eventually(lambda: (mine := lease.usage()[0]).held == 0 and mine)
        caller.close()
        lease.release()
    events = eventually(lambda: settled_log(house, lease=lease.name))
    ends = settled(events)
    voided = [end for end in ends if end["details"].get("voided")]
    assert voided, "what could not connect was given back"
    assert all(cost(end) == 0 for end in voided)
    broken = [end for end in ends if end["outcome"] == "failed" and end not in voided]
    assert len(broken) >= 2, "the stream, and the call without an answer"
    assert all(cost(end) > 0 for end in broken)
    assert sum(cost(end) for end in ends) == usage.settled
    assert served <= len(house.served())
