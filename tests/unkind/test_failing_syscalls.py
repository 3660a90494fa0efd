"""Writes and syncs that fail under a running sidecar and a running collector, by system call injection.

A fleet budget is over everything. After each fault and a kill the stand-in's book, the sidecar's log and the centre's
books are held against each other. Skipped, with the reason, where processes cannot be traced.
"""

import contextlib
import os
import tempfile
from itertools import product
from pathlib import Path

import anthropic
import pytest
from tests.e2e.conftest import eventually, in_loop
from tests.unkind.crashing_fleet import FleetStage, Found, book, reckon
from tests.unkind.failing_syscalls import failing, why_not
from tests.unkind.real_house import Caller

from leasehold import LeaseholdClient
from leasehold.errors import LeaseholdError
from leasehold.operators import selector

pytestmark = pytest.mark.timeout(600)
SIDECAR = "sidecar-0"
CAP = 10_000_000
CALLS_MAX = 300
WRITES, SYNCS = "write,pwrite64,ftruncate", "fsync,fdatasync"
TYPED = {"STORE_UNAVAILABLE", "AUDIT_SPOOL_FULL", "FLEET_BUDGET_UNAVAILABLE"}
ALL = os.environ.get("SYSCALLS") == "all"
"""All of them are `make unkind`."""
FIRST = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)
EACH = list(product((WRITES, SYNCS), ("ENOSPC", "EIO"), FIRST))
SIDECAR_FAULTS = EACH if ALL else [(SYNCS, "EIO", 2)]
CENTRE_FAULTS = EACH if ALL else [(WRITES, "EIO", 8)]


@pytest.fixture(scope="module")
def house():
    """One sidecar, its centre, and a fleet budget."""
    with tempfile.TemporaryDirectory(prefix="leasehold-") as folder:
        if why := why_not(Path(folder)):
            pytest.skip(why)
        root = Path(folder) / "stage"
        root.mkdir(mode=0o700)
        with in_loop(root, {"sidecars": 1, "cap": CAP, "database": None}, FleetStage) as house:
            yield house


class Ends:
    """What calls came to while something failed."""

    def __init__(self, house, caller: Caller) -> None:
        """Count what goes upstream from here."""
        self._house, self._caller = house, caller
        self._before = len(book(house.stage))
        self.taken = 0
        self.refused: list[str] = []

    def call(self) -> str:
        """One more: "taken", the reason of its refusal, or "gone": the process has ended."""
        try:
            end = self._caller.call()
        except anthropic.APIConnectionError:
            return "gone"
        self.taken += end == "taken"
        self.refused += [] if end == "taken" else [end]
        return end

    def check(self) -> None:
        """What was refused has a reason of ours, and did not go upstream."""
        assert set(self.refused) <= TYPED
        assert len(book(self._house.stage)) - self._before == self.taken


@pytest.fixture
def caller(house):
    """An agent with a lease that outlives all faults; the sidecar's port stays."""
    house.stage.refresh_tokens()
    token = house.stage.layout.token(f"agent-{SIDECAR}")
    with LeaseholdClient(house.stage.sidecar_target(SIDECAR), token) as client:
        lease = client.acquire(provider="anthropic", budget="10", ttl="1h", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        yield caller
        caller.close()
        lease.abandon()


def killed_and_started(house, name):
    """On what is on the disk."""
    with contextlib.suppress(ProcessLookupError):  # a sidecar may have ended by itself
        house.wait_for(house.stage.crash(name))
    house.stage.refresh_tokens()
    house.wait_for(house.stage.start(name))


def database(house, name, file):
    """Of one process."""
    return house.stage.layout.root / "state" / name / file


@pytest.mark.parametrize(("calls", "error", "first"), SIDECAR_FAULTS)
def test_a1_b6_b9_e3_a_sidecar_whose_writes_fail_admits_nothing_that_is_not_on_record(
    house, caller, calls, error, first
):
    """It refuses by name or ends; what went upstream is charged and told, also after a kill; the books agree."""
    stage, ends = house.stage, Ends(house, caller)
    process = stage.serving(SIDECAR).process
    with failing(process.pid, database(house, SIDECAR, "state.db"), calls, error, first) as trace:
        last = next((end for _ in range(CALLS_MAX) if (end := ends.call()) != "taken"), "")
        assert last, "nothing failed"
        for _ in range(3):
            ends.call()
        injected = trace.read_text().count("(INJECTED)")
    ends.check()
    assert injected
    if error == "ENOSPC" and calls == WRITES:
        assert eventually(lambda: caller.call() == "taken"), "with room again it goes on"
    killed_and_started(house, SIDECAR)
    assert eventually(lambda: caller.call() == "taken")
    house.wait_for(reckon(stage, Found(cap=CAP)))


@pytest.mark.parametrize(("calls", "error", "first"), CENTRE_FAULTS)
def test_a2_a3_e1_r1_a_collector_whose_writes_fail_loses_nothing_that_it_took(house, caller, calls, error, first):
    """Calls go on; what it says is revoked or granted is on its disk; killed, it takes the rest; the books agree."""
    stage, ends, subject = house.stage, Ends(house, caller), f"agents/nobody/{first}"
    process = stage.serving("collector").process
    revoked = 0
    with (
        failing(process.pid, database(house, "collector", "collector.db"), calls, error, first) as trace,
        house.operator() as operator,
    ):
        why = ""
        for _ in range(CALLS_MAX):
            ends.call()
            try:
                revoked = operator.revoke(selector(subject=subject), note="drill").progress.entry.epoch
            except LeaseholdError as refused:
                why = refused.reason
                break
        assert why == "STORE_UNAVAILABLE"
        assert eventually(lambda: "no checkpoint now" in (stage.layout.logs / "collector.log").read_text())
        for _ in range(3):
            ends.call()
        injected = trace.read_text().count("(INJECTED)")
    ends.check()
    assert injected
    assert process.returncode is None, "what is revoked still reaches sidecars"
    assert ends.taken
    killed_and_started(house, "collector")
    with house.operator() as operator:
        epochs = [one.epoch for one in operator.revocations()]
    assert max(epochs, default=0) >= revoked, "what was said to be in force is"
    assert epochs == sorted(set(epochs)) or epochs == sorted(set(epochs), reverse=True)
    assert eventually(lambda: caller.call() == "taken")
    house.wait_for(reckon(stage, Found(cap=CAP)))
