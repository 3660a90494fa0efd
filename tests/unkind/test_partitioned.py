"""A real partition: the collector in a network namespace, and the wire to the sidecar taken away; packets just vanish.

The authority time, end to end: whatever the centre has revoked is refused at the latest when the centre says so, and
what happened beyond the wire is told once it is back. Needs root and `ip`; skipped, with the reason, without them.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.bench.fleet.stage import FleetStage
from tests.bench.origin import MODEL as BENCH_MODEL
from tests.e2e.conftest import eventually
from tests.unkind.real_house import MODEL, Caller, needs_root, possible, run, staged

from leasehold import LeaseholdClient
from leasehold.audit import verify
from leasehold.operators import selector

pytestmark = [pytest.mark.timeout(300), needs_root]
AUTHORITY_SECONDS = 4
SUBJECT = "agents/sidecar-0/0"


class Wires:
    """A namespace with two wires to it: one for the sidecar, one for operators."""

    def __init__(self) -> None:
        """Choose names and addresses that nobody else here uses."""
        mark = secrets.token_hex(3)
        self.namespace = f"lh-{mark}"
        self.names = [f"lh{mark}{number}" for number in range(2)]
        net = f"198.18.{os.getpid() % 256}"
        self.hosts = [f"{net}.{2 + 4 * number}" for number in range(2)]
        self._near = [f"{net}.{1 + 4 * number}" for number in range(2)]

    def lay(self) -> None:
        """Lay them."""
        run("ip", "netns", "add", self.namespace)
        self._inside("link", "set", "lo", "up")
        for name, host, near in zip(self.names, self.hosts, self._near, strict=True):
            run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p", "netns", self.namespace)
            run("ip", "addr", "add", f"{near}/30", "dev", name)
            run("ip", "link", "set", name, "up")
            self._inside("addr", "add", f"{host}/30", "dev", f"{name}p")
            self._inside("link", "set", f"{name}p", "up")

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Take the sidecar's wire away, at the far end: nobody here is told, packets go nowhere."""
        self._inside("link", "set", f"{self.names[0]}p", "down")
        try:
            yield
        finally:
            self._inside("link", "set", f"{self.names[0]}p", "up")

    def take_away(self) -> None:
        """All of it; its wires go with the namespace."""
        run("ip", "netns", "del", self.namespace)

    def _inside(self, *command: str) -> None:
        run("ip", "-n", self.namespace, *command)


@pytest.fixture
def wires():
    """Laid, and taken away in the end."""
    wires = Wires()
    if not possible("ip", "netns", "add", f"{wires.namespace}-probe"):
        pytest.skip("network namespaces cannot be made here (ip netns add)")
    run("ip", "netns", "del", f"{wires.namespace}-probe")
    try:
        wires.lay()
        yield wires
    finally:
        wires.take_away()


@pytest.fixture
def house(wires):
    """A collector beyond the wires, a sidecar here; both TLS."""

    class Beyond(FleetStage):
        listen = "0.0.0.0"
        centre_host, operators_host = wires.hosts
        within = ("ip", "netns", "exec", wires.namespace)

        def __init__(self, root, sidecars, authority_seconds) -> None:
            super().__init__(root, links=0, processes=0, sidecars=len(sidecars), authority_seconds=authority_seconds)

        def policy_text(self) -> str:
            return super().policy_text().replace(BENCH_MODEL, MODEL)

    with staged(Beyond, authority_seconds=AUTHORITY_SECONDS) as house:
        yield house


def test_r3_r6_beyond_a_partition_what_is_revoked_ends_with_the_authority_and_all_is_told_when_it_heals(house, wires):
    """No call is taken once the centre counts on the sidecar's refusing; healed, the stream is cut, nothing is lost."""
    stage = house.stage
    [sidecar] = stage.whole
    with (
        LeaseholdClient(stage.sidecar_target(sidecar), stage.workload("agent", SUBJECT, team="red")) as client,
        stage.responder() as operator,
    ):
        lease = client.acquire(provider="anthropic", ttl="5m", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        stream = caller.stream(1)  # this origin's streams have no end
        with wires.cut():
            progress = operator.revoke(selector(subject=SUBJECT), note="drill").progress
            assert not progress.complete
            told = list(operator.watch_progress(progress.entry.name, 90))
            assert told[-1].complete
            [row] = told[-1].sidecars
            assert row.applied_epoch < progress.entry.epoch
            assert {caller.call() for _ in range(10)} == {"CENTRE_UNREACHABLE"}, "the centre counts on it"
            before = stream.chunks
            assert eventually(lambda: stream.chunks > before), "admitted before, paid for by its hold, not yet revoked"
        reasons = []
        assert eventually(lambda: reasons.append(caller.call()) or reasons[-1] == "LEASE_REVOKED")
        assert set(reasons) <= {"CENTRE_UNREACHABLE", "LEASE_REVOKED"}
        assert "LEASE_REVOKED" in stream.end() or stream.ended
        cut = eventually(lambda: (now := operator.progress(progress.entry.name).sidecars[0]).calls_cut and now)
        assert cut.applied_epoch >= progress.entry.epoch

        def all_told():
            events = [record.event() for record in operator.events(lease=lease.name)]
            kinds = [event["type"] for event in events]
            return events if kinds.count("call.admitted") == kinds.count("call.settled") else None

        events = eventually(all_told)
        verdict = verify(((str(record.position), record) for record in operator.events()), operator.heads())
        lease.abandon()
    assert verdict.holds
    refused = [event for event in events if event.get("reason") == "CENTRE_UNREACHABLE"]
    assert refused, "what was refused beyond the partition is in the log"
    calls = house.wait_for(stage.noted())["origin"]["calls"]
    assert len(calls) == sum(event["type"] == "call.admitted" for event in events), "each request has its event"
