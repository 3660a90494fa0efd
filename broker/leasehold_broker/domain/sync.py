"""What a sidecar and the centre tell each other. Owns the words and the arithmetic of authority; sends nothing.

Authority: the sidecar may grant until `sent + authority`, where `sent` is when it sent the heartbeat that an answer
names, and only once it has applied everything up to the epoch in that answer. The centre wrote the answer after it got
that heartbeat, so whatever it had revoked before `sent` is in it: a sidecar never grants on knowledge older than
`authority`. The centre counts a sidecar as silent only after `received + authority`, widened by the drift that two
clocks may have: as `received` is never before `sent`, the sidecar refuses by then.
"""

from collections.abc import Callable
from dataclasses import dataclass

from leasehold_broker.domain.budget_changes import BudgetChange, BudgetRows
from leasehold_broker.domain.fleet_budget import SliceReport, SliceTold
from leasehold_broker.domain.key_use import KeyUse
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_progress import AppliedRevocation, LiveLeases

HEARTBEATS_PER_AUTHORITY = 3
CLOCK_DRIFT_MAX = 0.01
"""Two boot clocks differ in rate by at most this (E9)."""

REPORT_SECONDS_EACH = 0.001
"""What a collector needs, roughly, to take in from one sidecar that a revocation is in force, and the events of it."""
REPORT_SPREAD_SECONDS_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Hello:
    """How a sidecar opens a session. `life` names its process; empty: it knows no fleet budgets."""

    sidecar: str
    environment: str
    version: str
    life: str = ""


@dataclass(frozen=True, slots=True)
class SyncMessage:
    """From a sidecar.

    Args:
        hello: on the first message only.
        applied_epoch: highest epoch whose effects are durable there.
        applied: what the epochs since the last message ended.
        live: full list, when it has changed; else None.
        heartbeat: counted from 1 within a session; 0: this message asks for no answer.
        applied_budget_change: highest number that is durable there.
        budgets: how they stand, now and then; else None.
        slices: of fleet budgets, all of them.
        key_uses: full list, when it has changed; else None.
        history: digest of what is applied; None: from a build that tells none.
    """

    hello: Hello | None
    applied_epoch: int
    applied: tuple[AppliedRevocation, ...] = ()
    live: LiveLeases | None = None
    heartbeat: int = 0
    applied_budget_change: int = 0
    budgets: BudgetRows | None = None
    slices: tuple[SliceReport, ...] = ()
    key_uses: tuple[KeyUse, ...] | None = None
    history: bytes | None = None
    budget_history: bytes | None = None


@dataclass(frozen=True, slots=True)
class Push:
    """From the centre.

    Args:
        revocation_epoch: the newest there is.
        revocations: the next entries, in order, without a gap; more pushes follow while the last is below
            `revocation_epoch`.
        authority_seconds: how long an answered heartbeat is good for.
        answers: highest heartbeat received before `revocation_epoch` was read.
        budget_change: number of the newest change of a cap.
        budget_changes: the next ones, in order, without a gap.
        slices: of fleet budgets, all that there are for this sidecar; None: the centre knows no fleet budgets.
        report_spread_seconds: what the entries end may be told so much later.
        history: digest of the entries up to `revocation_epoch`; None: from a build that tells none.
        snapshot: the session's entries begin with the first there is.
        budget_history: digest of the changes up to `budget_change`; None: from a build that tells none.
        budget_snapshot: the session's changes begin with the first there is.
    """

    revocation_epoch: int
    revocations: tuple[Revocation, ...]
    authority_seconds: float
    answers: int
    budget_change: int = 0
    budget_changes: tuple[BudgetChange, ...] = ()
    slices: tuple[SliceTold, ...] | None = None
    report_spread_seconds: float = 0.0
    history: bytes | None = None
    snapshot: bool = False
    budget_history: bytes | None = None
    budget_snapshot: bool = False


def report_spread(sidecars: int) -> float:
    """Seconds over which so many sidecars tell what a revocation has ended: none notices in a small fleet."""
    return min(sidecars * REPORT_SECONDS_EACH, REPORT_SPREAD_SECONDS_MAX)


def next_entries(applied_epoch: int, push: Push) -> tuple[Revocation, ...]:
    """The entries of a push that follow what is applied; repeated ones are left out.

    Raises:
        ValueError: a gap, disorder, nothing where more is due, or a centre that is behind (R5): nothing of it may be
            applied.
    """
    if push.revocation_epoch < applied_epoch:
        message = f"the centre is at epoch {push.revocation_epoch}, {applied_epoch} is applied here: it lost history"
        raise ValueError(message)
    _check_begun(push, applied_epoch)
    fresh = tuple(entry for entry in push.revocations if entry.epoch > applied_epoch)
    for due, entry in enumerate(fresh, applied_epoch + 1):
        if entry.epoch != due or entry.epoch > push.revocation_epoch:
            message = f"epoch {entry.epoch} where {due} was due"
            raise ValueError(message)
    return fresh


def _check_begun(push: Push, known_epoch: int) -> None:
    """The centre tells of an epoch with the entries up to it, or the next of them: told alone, they were lost before.

    Raises:
        ValueError: they were; they come again in a new session only.
    """
    if not push.revocations and push.revocation_epoch > known_epoch:
        message = f"the centre is at epoch {push.revocation_epoch}, and what follows {known_epoch} did not come"
        raise ValueError(message)


class Matching:
    """Finds up to where the entries of a snapshot are those applied here, push by push."""

    def __init__(self) -> None:
        """Nothing compared."""
        self._equal = 0

    def agreed(self, push: Push, numbered: Callable[[int], Revocation | None]) -> int | None:
        """The last number that means the same on both sides; None while more has to come.

        Args:
            push: the next of the session.
            numbered: what a number means here.

        Raises:
            ValueError: a gap, or nothing where more is due (R5).
        """
        _check_begun(push, self._equal)
        for entry in push.revocations:
            if entry.epoch <= self._equal:
                continue
            if entry.epoch != self._equal + 1:
                message = f"epoch {entry.epoch} where {self._equal + 1} was due in a snapshot"
                raise ValueError(message)
            if numbered(entry.epoch) != entry:
                return self._equal
            self._equal = entry.epoch
        return self._equal if self._equal >= push.revocation_epoch else None


def agreed_changes(applied: int, push: Push, has: Callable[[BudgetChange], bool]) -> int | None:
    """The last change of a cap that means the same on both sides, of a session whose changes begin with the first.

    Args:
        applied: highest number here.
        push: the next of the session; its changes are in order.
        has: whether its number means just this here.

    Returns:
        None while nothing here is known to be lacking there.
    """
    for change in push.budget_changes:
        if change.number <= applied and not has(change):
            return change.number - 1
    last = push.budget_changes[-1].number if push.budget_changes else 0
    return push.budget_change if last >= push.budget_change < applied else None


def silence_seconds(authority_seconds: float) -> float:
    """How long the centre must not have heard a sidecar before it counts on that sidecar's refusing."""
    return authority_seconds * (1 + CLOCK_DRIFT_MAX)
