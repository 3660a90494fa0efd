"""The checks of the fleet: what is looked at after a step finds whatever a look at everything finds, at that step."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.simulation.fleet.run import run_seed
from tests.simulation.fleet.settings import Settings

from leasehold_broker.domain.escrow import Escrow, Slice
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.flows.apply_revocations import ApplyRevocations

NEVER = 10**9
FLEET = Settings(
    sidecars=3, fault_seconds=0.7, calls_per_second=4.0, worst_max=400, authority_seconds=10.0,
    lose=0.02, repeat=0.1, swap=0.1,
)  # fmt: skip
SEED, SECONDS = 7, 25.0
QUIET = replace(FLEET, sidecars=2, calls_per_second=1.0)

_grant, _report, _end = Escrow.grant, Escrow.report, Escrow.end
_apply, _applied_epoch = ApplyRevocations.apply, ApplyRevocations.applied_epoch


def _forgets_a_right(self: Escrow, fence: int, amount: int) -> Slice:
    found = _grant(self, fence, amount)
    self._rights -= amount // 7
    return found


def _lets_reports_fall(self: Escrow, fence: int, life: str, returned: int, spent: int, held: int) -> int:
    freed = _report(self, fence, life, returned, spent, held)
    found = self.slices[fence]
    self._gone -= found.spent
    found.reported -= found.reported if found.reported % 2 else 0
    self._gone += found.spent
    return freed


def _believes_more(self: Escrow, fence: int, life: str, returned: int, spent: int, held: int) -> int:
    return _report(self, fence, life, returned, spent + held, held)


def _counts_twice(self: Escrow, fence: int, life: str, returned: int, spent: int, held: int) -> int:
    freed = _report(self, fence, life, returned, spent, held)
    self._gone += freed
    return freed


def _leaves_it_open(self: Escrow, fence: int) -> None:
    found = self.slices[fence]
    if self.open_of.pop(found.sidecar, None) is None:
        _end(self, fence)


def _falls_back(self: ApplyRevocations) -> int:
    durable = _applied_epoch(self)
    return durable - 1 if durable and self._books.calls else durable


async def _renames_all(self: ApplyRevocations, revocations: Sequence[Revocation]) -> Any:
    return await _apply(self, [replace(one, note="another") for one in revocations])


BUGS: dict[str, tuple[type, str, Callable[..., Any], str]] = {
    "a right is not counted": (Escrow, "grant", _forgets_a_right, "E1"),
    "what is gone is counted twice": (Escrow, "report", _counts_twice, "E1"),
    "reports fall": (Escrow, "report", _lets_reports_fall, "E4"),
    "what is held counts as reported": (Escrow, "report", _believes_more, "E4"),
    "a slice that was taken over stays open": (Escrow, "end", _leaves_it_open, "E7"),
    "what is applied falls": (ApplyRevocations, "applied_epoch", _falls_back, "R1"),
    "another revocation is applied": (ApplyRevocations, "apply", _renames_all, "R5"),
}


def _found(complete_every: int) -> tuple[str, str]:
    """What the run fails with, and after which step; nothing when all held."""
    with pytest.raises(AssertionError) as failure:
        run_seed(SEED, replace(FLEET, complete_every=complete_every), seconds=SECONDS)
    notes = [note for note in failure.value.__notes__ if note.startswith("after step")]
    return str(failure.value), notes[0]


@pytest.mark.parametrize("bug", BUGS)
def test_a_look_at_what_a_step_touched_finds_what_a_look_at_everything_finds(
    monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    """The same violation, of the invariant that the bug breaks, after the same step, whichever way is taken."""
    where, name, planted, invariant = BUGS[bug]
    monkeypatch.setattr(where, name, planted)
    touched_only, also_all = _found(NEVER), _found(1)
    assert touched_only == also_all
    assert touched_only[0].startswith(invariant)


def test_a_look_at_everything_after_each_step_finds_nothing_else_and_changes_nothing() -> None:
    """Of a sound fleet: it is the same run, to the bit, however often everything is looked at."""
    assert run_seed(SEED, replace(QUIET, complete_every=1), seconds=4.0).digest == (
        run_seed(SEED, replace(QUIET, complete_every=NEVER), seconds=4.0).digest
    )
