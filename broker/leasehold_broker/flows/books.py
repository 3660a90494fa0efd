"""The books of one sidecar: every lease, token digest, budget, open call and watcher, in memory, in one place.

Owns look-ups and indexes. Flows decide on it without awaiting, then make the result durable. Refuses to do I/O, to
decide policy and to end anything by itself.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.budget_changes import BudgetChange, BudgetChangeHistory
from leasehold_broker.domain.call import CallEnd, CallPlan
from leasehold_broker.domain.engine_lease import EngineLease
from leasehold_broker.domain.identity import Identity, Peer, Subject
from leasehold_broker.domain.keys import KeyMark, KeyMarkKind
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.ledger import AccountId, Ledger
from leasehold_broker.domain.price import ModelPrice
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_history import RevocationHistory
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import Instant, SteadyTime
from leasehold_broker.flows.slices import Slices
from leasehold_broker.flows.window_accounts import bucket_start_ms
from leasehold_broker.ports.state_store import PutKeyMark, PutRequest

DEPTH_MAX = 16
"""No delegation tree is deeper, whatever the policy says: walks to the root stay short."""

EXPIRY_SLACK = 1024
"""Entries that the heap of ends may hold beyond two for each lease."""

Cut = Callable[[CallEnd, Refusal], None]


@dataclass(slots=True)
class OpenCall:
    """One admitted call that has not been settled."""

    id: str
    lease: str
    plan: CallPlan
    price: ModelPrice | None
    request_id: str
    key: str
    key_version: int
    cut: Cut | None
    cut_by: tuple[CallEnd, Refusal] | None = None


@dataclass(slots=True)
class Counters:
    """Plain counts for metrics; they only grow."""

    leases_issued: int = 0
    calls_admitted: int = 0
    calls_settled: int = 0
    calls_cut: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    charged_micro_usd: int = 0
    estimated_settlements: int = 0
    unpriced_settlements: int = 0
    outputs_lowered: int = 0
    keys_taken_out: int = 0
    thresholds_crossed: dict[str, int] = field(default_factory=dict)
    files_refused: dict[str, int] = field(default_factory=dict)


def lease_account(name: str) -> AccountId:
    """The budget of the lease itself."""
    return AccountId(f"lease:{name}")


class Books:
    """State in memory. One owner: the event loop's thread."""

    def __init__(self, sidecar: str = "") -> None:
        """Start empty, for the sidecar of this name."""
        self.sidecar = sidecar
        self.leases: dict[str, Lease] = {}
        self.token_of: dict[bytes, str] = {}
        self.digest_of: dict[str, bytes] = {}
        self.children: dict[str, set[str]] = {}
        self.ledger = Ledger()
        self.slices = Slices(self.ledger)
        self.calls: dict[str, OpenCall] = {}
        self.calls_of: dict[str, set[str]] = {}
        self.live_of_subject: dict[tuple[str, str, str], set[str]] = {}
        self.live_changes = 0
        """How often a lease has come to life or ended: who lists the live ones has to look again when it differs."""
        self.requests: dict[tuple[str, str], PutRequest] = {}
        self.fresh_tokens: dict[str, Secret] = {}
        self.revocations: list[Revocation] = []
        self.revocation_history = RevocationHistory()
        """Of these."""
        self.revocations_set_aside: list[Revocation] = []
        """Whose numbers the centre has lost; kept with negative ones, newest last."""
        self.blocks: dict[int, Revocation] = {}
        """Those of both that block new leases and are not lifted, by epoch."""
        self.epoch = 0
        self.durable_epoch = 0
        self.budget_changes: dict[str, dict[Metric, BudgetChange]] = {}
        self.lowered_aside: dict[str, dict[Metric, BudgetChange]] = {}
        """What the centre has lost, and still lowers a cap here."""
        self.all_budget_changes: list[BudgetChange] = []
        self.budget_history = BudgetChangeHistory()
        self.caps_version = 0
        """Counts what was put of these, whatever its number."""
        """Of each budget the change that counts, by metric."""
        self.changes_of_request: dict[tuple[str, str], BudgetChange] = {}
        self.budget_change = 0
        self.durable_budget_change = 0
        self.unborn: set[str] = set()
        """Leases whose first commit is under way: counted, but not yet anyone's to see, renew or delegate."""
        self.watchers: dict[str, set[asyncio.Event]] = {}
        self.draining = False
        self.idle = asyncio.Event()
        self.idle.set()
        self.expiry: list[tuple[int, str]] = []
        self.counters = Counters()
        self.key_marks: dict[tuple[str, KeyMarkKind], KeyMark] = {}
        self.exposures: dict[str, KeyMark] = {}
        """Keys that were handed out in the clear, by the live lease that did it."""
        self.engine_leases: dict[str, EngineLease] = {}
        """What a secret engine made, by the lease that it was handed out with, until it is revoked."""
        self._steady: SteadyTime | None = None

    def __repr__(self) -> str:
        """Counts only."""
        return f"Books(leases={len(self.leases)}, calls={len(self.calls)}, epoch={self.epoch}, {self.ledger!r})"

    def put_key_mark(self, mark: KeyMark) -> PutKeyMark:
        """Remember something of a key's past; the change that makes it durable."""
        self.key_marks[mark.key, mark.kind] = mark
        if mark.kind is KeyMarkKind.EXPOSED:
            self.exposures[mark.lease] = mark
        return PutKeyMark(mark)

    def steady_ms(self, now: Instant) -> int:
        """The time of rolling windows; it begins when first asked for, behind no bucket that was restored."""
        if self._steady is None:
            starts = (bucket_start_ms(account.id) for account in self.ledger.accounts())
            self._steady = SteadyTime(now, max((start for start in starts if start is not None), default=0))
        return self._steady.ms(now)

    def put_budget_change(self, change: BudgetChange) -> None:
        """Put a change of a cap in force; it replaces an earlier one of the same budget and metric.

        One that was set aside, and has a negative number, counts besides.
        """
        self.caps_version += 1
        if change.number < 0:
            self.lowered_aside.setdefault(change.budget, {})[change.metric] = change
            return
        self.budget_changes.setdefault(change.budget, {})[change.metric] = change
        self.changes_of_request[change.changed_by, change.request_id] = change
        self.budget_change = change.number
        self.all_budget_changes.append(change)
        self.budget_history.extend([change])

    def changes_of(self, budget: str) -> tuple[BudgetChange, ...]:
        """The changes of one budget that count, ended ones among them; those that lower in spite of others last."""
        if budget not in self.budget_changes and budget not in self.lowered_aside:
            return ()
        return (*self.budget_changes.get(budget, {}).values(), *self.lowered_aside.get(budget, {}).values())

    def put_lease(self, lease: Lease, digest: bytes | None = None) -> None:
        """Insert or replace a lease and keep every index true; wakes its watchers."""
        known = lease.name in self.leases
        self.leases[lease.name] = lease
        if digest is not None:
            old = self.digest_of.get(lease.name)
            if old is not None:
                self.token_of.pop(old, None)
            self.token_of[digest] = lease.name
            self.digest_of[lease.name] = digest
        if not known and lease.parent:
            self.children.setdefault(lease.parent, set()).add(lease.name)
        holder = (lease.grant, lease.subject.issuer, lease.subject.subject)
        if lease.ended:
            self._no_longer_live(holder, lease.name)
        else:
            live = self.live_of_subject.setdefault(holder, set())
            if lease.name not in live:
                live.add(lease.name)
                self.live_changes += 1
            self._note_expiry(lease)
        self.wake(lease.name)

    def forget_lease(self, name: str) -> None:
        """Drop a lease from every index, as if it had never been put."""
        lease = self.leases.pop(name)
        self.unborn.discard(name)
        digest = self.digest_of.pop(name, None)
        if digest is not None:
            self.token_of.pop(digest, None)
        self.fresh_tokens.pop(name, None)
        if lease.parent in self.children:
            self.children[lease.parent].discard(name)
            if not self.children[lease.parent]:
                del self.children[lease.parent]
        holder = (lease.grant, lease.subject.issuer, lease.subject.subject)
        self._no_longer_live(holder, name)

    def _no_longer_live(self, holder: tuple[str, str, str], name: str) -> None:
        live = self.live_of_subject.get(holder)
        if live is not None and name in live:
            live.discard(name)
            self.live_changes += 1
            if not live:
                del self.live_of_subject[holder]

    def live_count(self, grant: str, subject: Subject) -> int:
        """Live leases of this subject under this grant."""
        return len(self.live_of_subject.get((grant, subject.issuer, subject.subject), ()))

    def ancestors(self, lease: Lease) -> Iterator[Lease]:
        """Parent, grandparent, up to the root."""
        name = lease.parent
        for _ in range(DEPTH_MAX + 1):
            parent = self.leases.get(name)
            if parent is None:
                return
            yield parent
            name = parent.parent

    def take_due(self, boot_ns: int) -> list[str]:
        """Names of leases whose end has come, each once; earlier ends that a renewal has moved are passed over."""
        due: dict[str, None] = {}
        while self.expiry and self.expiry[0][0] <= boot_ns:
            _, name = heapq.heappop(self.expiry)
            lease = self.leases.get(name)
            if lease is not None and not lease.ended and lease.expire_ns <= boot_ns:
                due[name] = None
        return list(due)

    def tree(self, name: str) -> list[Lease]:
        """The lease and all delegated from it, deepest first, so that carved budgets flow back upwards."""
        found = [self.leases[name]] if name in self.leases else []
        for lease in found:
            found.extend(self.leases[child] for child in sorted(self.children.get(lease.name, ())))
        return found[::-1]

    def owned(self, identity: Identity, peer: Peer, name: str) -> Lease:
        """The lease, when this caller holds it or a lease above it.

        Raises:
            Refusal: LEASE_NOT_FOUND, also when it is another's: the answer is no oracle.
        """
        lease = None if name in self.unborn else self.leases.get(name)
        if lease is not None and lease.subject.same_as(identity.subject):
            if peer.satisfies(lease.binding):
                return lease
            if any(peer.satisfies(parent.binding) for parent in self.ancestors(lease)):
                return lease
        raise Refusal(
            Reason.LEASE_NOT_FOUND,
            f"no lease {name!r} of yours is known here; acquire one",
            detail="unknown" if lease is None else "belongs to another subject or peer",
        )

    def _note_expiry(self, lease: Lease) -> None:
        heapq.heappush(self.expiry, (lease.expire_ns, lease.name))
        if len(self.expiry) > 2 * len(self.leases) + EXPIRY_SLACK:
            # Renewals and early ends leave entries behind: rebuilt, so that a busy holder cannot grow the heap.
            self.expiry = [(one.expire_ns, one.name) for one in self.leases.values() if not one.ended]
            heapq.heapify(self.expiry)

    def wake(self, name: str) -> None:
        """Tell the watchers of a lease that it has changed: one pending wake-up each, never a queue."""
        for watcher in self.watchers.get(name, ()):
            watcher.set()

    def count_refusal(self, reason: Reason) -> None:
        """Count a refusal for the metrics."""
        self.counters.refusals[reason] = self.counters.refusals.get(reason, 0) + 1
