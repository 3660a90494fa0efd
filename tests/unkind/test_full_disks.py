"""Disks that are full under real processes: a small tmpfs below each, and a file that takes what is left of it.

Needs root and mounts; skipped, with the reason, where they are not. The stores' own tests inject the same errors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.conftest import eventually
from tests.unkind.real_house import SIDECAR, Caller, complete_log, needs_root, possible, run, staged

from leasehold.errors import LeaseholdError
from leasehold_broker.demo.stage import Stage

pytestmark = [pytest.mark.timeout(300), needs_root]
DISK_MEGABYTES = 48
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
                if refusing := "STORE_UNAVAILABLE" in log.read_text():
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
