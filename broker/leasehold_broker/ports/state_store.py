"""The port to the sidecar's durable state: changes and audit events in one transaction."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.amounts import Amounts
from leasehold_broker.domain.audit_chain import ChainEnd
from leasehold_broker.domain.budget_changes import BudgetChange
from leasehold_broker.domain.engine_lease import EngineLease
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.keys import KeyMark
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.ledger import AccountId, Hold, HoldId
from leasehold_broker.domain.replay import Showing
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.values import value


@value
class PutLease:
    """Insert or replace a lease. `token_digest` None keeps the stored one."""

    lease: Lease
    token_digest: bytes | None = None


@value
class PutHold:
    """A hold was opened for a call of `lease` (or carved for the delegated lease `lease`, then `carve`)."""

    hold: Hold
    lease: str
    carve: bool = False


@value
class DropHold:
    """A hold has ended."""

    hold: HoldId


@value
class PutAccount:
    """A budget's caps, settled amounts and overage are now these (held amounts follow from the holds).

    A snapshot of values, not the account: the writer reads it later, on its own thread.
    """

    account: AccountId
    caps: Amounts
    settled: Amounts
    overage: Amounts


@dataclass(frozen=True, slots=True)
class DropAccount:
    """A budget's lease or window has ended."""

    account: AccountId


@value
class PutRequest:
    """(subject, method, request_id) was answered with this lease; `fingerprint` is a digest of the request."""

    scope: str
    request_id: str
    fingerprint: bytes
    lease: str
    expire_wall_ms: int


@dataclass(frozen=True, slots=True)
class PutRevocation:
    """A revocation entry is known; it replaces one of the same epoch. Those set aside have negative ones."""

    revocation: Revocation


@dataclass(frozen=True, slots=True)
class DropRevocation:
    """No entry has this epoch any more."""

    epoch: int


@dataclass(frozen=True, slots=True)
class PutBudgetChange:
    """An operator's change of a cap is in force. Those set aside have negative numbers."""

    change: BudgetChange


@dataclass(frozen=True, slots=True)
class DropBudgetChange:
    """No change has this number any more."""

    number: int


@dataclass(frozen=True, slots=True)
class DropLease:
    """An ended lease is no longer remembered."""

    lease: str


@dataclass(frozen=True, slots=True)
class DropRequest:
    """A remembered answer has run out."""

    scope: str
    request_id: str


@dataclass(frozen=True, slots=True)
class PutShowing:
    """A token or proof was shown for the first time. Rows that have run out by `now_wall_ms` go at the same time."""

    showing: Showing
    now_wall_ms: int


@dataclass(frozen=True, slots=True)
class PutKeyMark:
    """Something of a key's past is to be remembered; marks of its older versions go at the same time."""

    mark: KeyMark


@dataclass(frozen=True, slots=True)
class PutEngineLease:
    """A credential of a secret engine is to be revoked some day."""

    engine_lease: EngineLease


@dataclass(frozen=True, slots=True)
class DropEngineLease:
    """It has been."""

    id: str


Change = (
    PutLease
    | DropLease
    | PutHold
    | DropHold
    | PutAccount
    | DropAccount
    | PutRequest
    | DropRequest
    | PutRevocation
    | DropRevocation
    | PutShowing
    | PutKeyMark
    | PutBudgetChange
    | DropBudgetChange
    | PutEngineLease
    | DropEngineLease
)


@dataclass(frozen=True, slots=True)
class StoredState:
    """Everything that was durable when the store was opened.

    `previous` is the last record of the life before; None in a new store.
    """

    leases: Sequence[tuple[Lease, bytes]]
    accounts: Sequence[PutAccount]
    holds: Sequence[PutHold]
    requests: Sequence[PutRequest]
    revocations: Sequence[Revocation]
    showings: Sequence[Showing] = ()
    previous: ChainEnd | None = None
    key_marks: Sequence[KeyMark] = ()
    budget_changes: Sequence[BudgetChange] = ()
    engine_leases: Sequence[EngineLease] = ()


class StateStore(Protocol):
    """Group-committing store with one writer. Commits become durable in the order of the calls."""

    def load(self) -> StoredState:
        """The state at opening; boot-clock deadlines are already translated to this boot. Call before any commit."""
        ...

    def commit(
        self,
        events: Sequence[Event],
        changes: Sequence[Change] = (),
        *,
        essential: bool = False,
        deferred: bool = False,
    ) -> Awaitable[None]:
        """Make events and changes durable together, numbered and chained; the awaitable is done after the sync.

        The order of two commits is the order in which `commit` was called (not awaited). When one fails because of the
        disk, those called before its failure was reported fail with it: no change is durable without those before it.

        Args:
            events: may be empty for changes that no event describes.
            changes: applied in order.
            essential: settlements and endings: accepted in the reserve beyond the spool's limit.
            deferred: nobody waits for it: it may wait some milliseconds for the next commit and share its sync.

        Raises (from the awaitable):
            Refusal: AUDIT_SPOOL_FULL (events shipped too slowly, or no room), STORE_UNAVAILABLE (disk failed) or
                OVERLOADED (too many commits wait; never for essential ones). Then nothing of this commit is stored.
        """
        ...
