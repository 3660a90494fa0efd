"""Disks that are full under real processes: a small tmpfs below each, and a file that takes what is left of it.

Needs root and mounts; skipped, with the reason, where they are not. The stores' own tests inject the same errors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.conftest import eventually
from tests.unkind.real_house import (
    SIDECAR,
    SUBJECT,
    Caller,
    complete_log,
    needs_root,
    possible,
    run,
    settled_log,
    staged,
)

from leasehold.errors import LeaseholdError
from leasehold.operators import selector
from leasehold_broker.demo.stage import Stage

pytestmark = [pytest.mark.timeout(300), needs_root]
DISK_MEGABYTES = 48
OTHER = "agents/research/other"
CALLS_MAX = 400
"""A store reuses what it has: it may take a while until it needs a page more."""
TYPED = {"STORE_UNAVAILABLE", "AUDIT_SPOOL_FULL"}


class SmallDisks(Stage):
    """Sidecar and collector have a disk each."""

    def disk(self, name: str) -> Path:
        """Where one's state is."""
        return self.layout.root / "state" / name

    async def start(self, name: str) -> None:
        """With its disk below it."""
        if not self.disk(name).exists():
            self.disk(name).mkdir(mode=0o700)
            mount(self.disk(name))
        await super().start(name)


def mount(folder: Path) -> None:
    """A small disk."""
    run("mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m,mode=700", "leasehold-test", str(folder))


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """No byte is left on it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Both disks, taken away in the end."""
    probe = tmp_path_factory.mktemp("probe")
    if not possible("mount", "-t", "tmpfs", "-o", "size=1m", "leasehold-test", str(probe)):
        pytest.skip("no tmpfs can be mounted here")
    run("umount", str(probe))
    with staged(SmallDisks, chunk_ms=5, authority_seconds=30) as house:
        disks = [house.stage.disk(name) for name in (SIDECAR, "collector")]
        yield house
        house.wait_for(house.stage.processes.stop_all())
        for disk in disks:
            run("umount", str(disk))


def refused_within(caller: Caller) -> str:
    """The first refusal; "" when there is none for long."""
    return next((reason for _ in range(CALLS_MAX) if (reason := caller.call()) != "taken"), "")


def test_a1_a_sidecar_on_a_full_disk_refuses_by_name_and_sends_nothing_that_is_not_on_record(house):
    """Every call that went upstream has its events; the rest is refused with a reason; with room again all goes on."""
    with house.client() as client:
        lease = client.acquire(provider="anthropic", ttl="5m", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        with full(house.stage.disk(SIDECAR)):
            reason = refused_within(caller)
            served = len(house.served())
            again = [caller.call() for _ in range(5)]
            with pytest.raises(LeaseholdError) as refused:
                client.acquire(provider="anthropic", ttl="5m", renew=False)
            assert len(house.served()) == served, "what is refused does not go upstream"
        assert {reason, *again, refused.value.reason} <= TYPED
        assert eventually(lambda: caller.call() == "taken")
        usage = eventually(lambda: (mine := lease.usage()[0]).held == 0 and mine)
        lease.release()

    def told():
        events = complete_log(house, lease=lease.name)
        return events if events and events[-1]["type"] == "lease.released" else None

    events = eventually(told)
    admitted = [one for one in events if one["type"] == "call.admitted"]
    settled = [one for one in events if one["type"] == "call.settled"]
    assert len(admitted) == len(settled)
    assert sum(one["details"]["charged"]["cost_micro_usd"] for one in settled) == usage.settled
    assert len(house.served()) <= len(admitted)


def test_a3_a_collector_on_a_full_disk_takes_nothing_it_cannot_keep_and_sidecars_go_on_and_tell_later(house):
    """Calls are served from the sidecar's own store meanwhile; nothing is lost, nothing doubled."""
    with house.client(name="other") as client:
        lease = client.acquire(provider="anthropic", ttl="5m", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        with full(house.stage.disk("collector")):
            log = house.stage.layout.logs / f"{SIDECAR}.log"
            taken = 0
            for _ in range(CALLS_MAX):
                taken += caller.call() == "taken"
                if refusing := "AUDIT_DISK_LOW" in log.read_text():
                    break
            assert refusing
            assert taken
        assert eventually(lambda: caller.call() == "taken")
        lease.release()

    def told():
        events = complete_log(house, lease=lease.name)
        return events if events and events[-1]["type"] == "lease.released" else None

    events = eventually(told)
    kinds = [event["type"] for event in events]
    assert kinds.count("call.admitted") == kinds.count("call.settled") >= taken + 2


def in_force(house, subject: str) -> int:
    """Revoke a subject, and wait until every sidecar has acknowledged it; its epoch."""
    with house.operator() as operator:
        issued = operator.revoke(selector(subject=subject), note="drill").progress.entry

        def acknowledged():
            progress = operator.progress(issued.name)
            return progress.complete and all(one.applied_epoch >= issued.epoch for one in progress.sidecars)

        assert eventually(acknowledged)
    return issued.epoch


def test_r4_a3_a_collector_on_a_full_disk_still_revokes_and_is_restarted_there(house):
    """Events wait at the sidecar, typed; revocations reach it, over a kill on the full disk; then none is missing."""
    log = house.stage.layout.logs / f"{SIDECAR}.log"
    before = log.read_text().count("AUDIT_DISK_LOW")
    with house.client(name="third") as client, house.client(name="fourth", subject=OTHER) as other:
        lease = client.acquire(provider="anthropic", ttl="5m", renew=False)
        spared = other.acquire(provider="anthropic", ttl="5m", renew=False)
        caller, going_on = Caller(lease), Caller(spared)
        assert eventually(lambda: caller.call() == "taken")
        with full(house.stage.disk("collector")):
            assert eventually(lambda: going_on.call() and log.read_text().count("AUDIT_DISK_LOW") > before)
            assert in_force(house, SUBJECT)
            assert caller.call() == "LEASE_REVOKED"
            assert going_on.call() == "taken"
            house.wait_for(house.stage.crash("collector"))
            house.wait_for(house.stage.start("collector"))
            assert in_force(house, OTHER)
            assert going_on.call() == "LEASE_REVOKED"
        lease.abandon()
        spared.abandon()
    kinds = [event["type"] for event in eventually(lambda: settled_log(house, lease=spared.name))]
    assert kinds.count("call.admitted") >= 2
    assert kinds.count("lease.revoked") == 1
    assert eventually(lambda: "audit.disk_freed" in of_the_centre(house))
    said = of_the_centre(house)
    assert said.count("revocation.issued") == 2
    assert "audit.disk_low" in said


def of_the_centre(house) -> list[str]:
    """Types of what the collector said, in order."""
    with house.operator() as operator:
        return [record.event()["type"] for record in operator.events(stream="collector")]
