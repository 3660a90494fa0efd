"""R1 to R6: what was revoked when, in true time, held against what every sidecar admits, applies and cuts.

The matching of selectors is written anew here, over what the world knows of a lease.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, assert_never

from tests.simulation.fleet.invariants_escrow import DECIDED_NS
from tests.simulation.fleet.loop import NANOS

from leasehold_broker.adapters.sqlite_collector import rows
from leasehold_broker.domain.revocation import (
    ByEnvironment,
    ByKey,
    ByLabel,
    ByLease,
    ByProvider,
    BySidecar,
    BySubject,
    Everything,
    Revocation,
    Selector,
)

CUT_SECONDS = 0.5
DRIFT = 1.01


@dataclass(frozen=True)
class LeaseFacts:
    """A lease, as whoever asked for it knows it. `trees`: its own name and those of its parents."""

    trees: tuple[str, ...]
    issuer: str
    subject: str
    environment: str
    labels: dict[str, str]
    providers: tuple[str, ...]
    keys: tuple[str, ...]
    sidecar: str
    epoch: int
    """Of the newest revocation that was in force where and when it was issued."""


def hits(selector: Selector, lease: LeaseFacts) -> bool:
    """Whether a responder who said this means that lease."""
    match selector:
        case ByLease(name):
            return name in lease.trees
        case BySubject(issuer, pattern):
            same = lease.subject.startswith(pattern[:-1]) if pattern.endswith("*") else lease.subject == pattern
            return same and issuer in {"", lease.issuer}
        case ByKey(key):
            return key in lease.keys
        case ByProvider(provider):
            return provider in lease.providers
        case ByEnvironment(environment):
            return environment == lease.environment
        case ByLabel(name, value):
            return lease.labels.get(name) == value
        case BySidecar(sidecar):
            return sidecar == lease.sidecar
        case Everything():
            return True
        case _:
            assert_never(selector)


@dataclass
class Heard:
    """What one process has heard of the centre, in true time."""

    until_ns: int = 0
    slices_ns: dict[int, int] = field(default_factory=dict)


class RevocationTruth:
    """Every entry with the moment it was durable, and what each process knows."""

    def __init__(self, world: Any, seen: Counter[str]) -> None:
        """Nothing is revoked."""
        self._world = world
        self._seen = seen
        self.issued: list[tuple[Revocation, int]] = []
        self._floor: dict[Any, int] = {}
        """R1: of each directory the epoch that was durable there."""
        self._looked: dict[Any, int] = {}
        self.heard: dict[Any, Heard] = {}

    def collector_committed(self, connection: Any) -> None:
        """Note what was issued."""
        (newest,) = connection.execute("SELECT coalesce(max(epoch), 0) FROM revocations").fetchone()
        if newest <= len(self.issued):
            return
        cursor = connection.execute(f"{rows.REVOCATIONS} WHERE epoch > ? ORDER BY epoch", (len(self.issued),))
        names = [column[0] for column in cursor.description]
        for row in cursor.fetchall():
            entry = rows.revocation(dict(zip(names, row, strict=True)))
            self.issued.append((entry, self._world.now_ns()))
            assert entry.epoch == len(self.issued), "R5: epochs have a hole at the centre"
            self._seen[f"revoked {type(entry.selector).__name__}"] += not entry.order.lifts
            self._seen["block lifted"] += bool(entry.order.lifts)
            self._world.trace("revoke", entry.epoch)

    # What a process hears.

    def watch(self, sidecar: Any) -> None:
        """A process starts: it has heard nothing."""
        self.heard[sidecar.process] = Heard()
        self._looked[sidecar.process] = 0

    def forget_floor(self, directory: Any) -> None:
        """The directory was put back or emptied: its past is another one."""
        self._floor.pop(directory, None)

    def pushed(self, process: Any, sent_ns: int | None, push: Any, authority_seconds: float) -> None:
        """An answer has arrived there: what it may grant at the very most, and until when."""
        heard = self.heard[process]
        if sent_ns is None:
            return
        heard.until_ns = max(heard.until_ns, sent_ns + int(authority_seconds * DRIFT * NANOS))
        for told in push.slices.slices:
            until = sent_ns + int(told.ttl.ToTimedelta().total_seconds() * DRIFT * NANOS)
            heard.slices_ns[told.fence] = max(heard.slices_ns.get(told.fence, 0), until)

    # What it does.

    def look(self, sidecar: Any) -> None:
        """After a step of this process: R1, R5, and what has to be cut now (R6)."""
        books = sidecar.core.books
        durable = sidecar.core.revocations.applied_epoch()
        floor = self._floor.get(sidecar.directory, 0)
        assert durable >= floor, f"R1: {sidecar.name} fell from epoch {floor} to {durable}"
        self._floor[sidecar.directory] = durable
        known = self._looked[sidecar.process]
        if len(books.revocations) == known:
            return
        for index in range(known, len(books.revocations)):
            entry = books.revocations[index]
            assert entry.epoch == index + 1, f"R5: {sidecar.name} applied {entry.epoch} where {index + 1} was due"
            assert index < len(self.issued), f"R5: {sidecar.name} applied what was never issued"
            assert entry.selector == self.issued[index][0].selector, f"R5: {sidecar.name} applied another {entry.epoch}"
            if not entry.order.lifts:
                self._to_be_cut(sidecar, entry)
        self._looked[sidecar.process] = len(books.revocations)

    def _to_be_cut(self, sidecar: Any, entry: Revocation) -> None:
        for call in sidecar.calls.values():
            if call.facts.epoch < entry.epoch and hits(entry.selector, call.facts):
                self._seen["stream of a revoked lease"] += 1
                self._world.loop.call_later(CUT_SECONDS, self._must_be_cut, sidecar, call)

    def _must_be_cut(self, sidecar: Any, call: Any) -> None:
        assert sidecar.process.dead or call.ended, f"R6: call {call.id} at {sidecar.name} was not cut"

    def admitted(self, sidecar: Any, facts: LeaseFacts) -> None:
        """A call was let through on this lease; it was decided a few commits ago."""
        now = self._world.now_ns() - DECIDED_NS
        self._speaks(sidecar, now)
        applied = len(sidecar.core.books.revocations)
        bound = self._world.settings.authority_seconds * DRIFT * NANOS
        for entry, at_ns in self.issued[facts.epoch :]:
            if entry.order.lifts or not hits(entry.selector, facts):
                continue
            assert entry.epoch > applied, f"R2: {sidecar.name} admitted a call that {entry.name} forbids"
            late = (now - at_ns) / NANOS
            assert now - at_ns <= bound, f"R4: {sidecar.name} admitted {late:.1f} s after {entry.name}"

    def _speaks(self, sidecar: Any, now: int) -> None:
        silent = (now - self.heard[sidecar.process].until_ns) / NANOS
        assert silent <= 0, f"R3: {sidecar.name} granted something {silent:.2f} s after it last spoke for the centre"

    def lease_given(self, sidecar: Any, facts: LeaseFacts) -> None:
        """A new lease, by one who speaks for the centre (R3): nothing that is in force there blocks its like (R2)."""
        self._speaks(sidecar, self._world.now_ns() - DECIDED_NS)
        lifted = {entry.order.lifts for entry in sidecar.core.books.revocations}
        for entry in sidecar.core.books.revocations:
            blocks = entry.order.block_new and entry.epoch not in lifted
            assert not (blocks and hits(entry.selector, facts)), f"R2: {entry.name} blocks leases like {facts.trees}"
