"""R1 to R6: what was revoked when, in true time, held against what every sidecar admits, applies and cuts.

The matching of selectors is written anew here, over what the world knows of a lease.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, assert_never

from tests.simulation.fleet.invariants_escrow import DECIDED_NS
from tests.simulation.fleet.loop import NANOS

from leasehold_broker.adapters.log_rows import revocation
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
    known: frozenset[Revocation]
    """All that were in force then: what comes later ends it, whatever its number."""


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


def _content(entry: Revocation) -> tuple[object, ...]:
    return entry.selector, entry.note, entry.revoked_by, entry.create_wall_ms


def _agreed(before: list[Revocation], after: list[Revocation]) -> int:
    """How many of them are the same, from the first on."""
    for index, (one, other) in enumerate(zip(before, after, strict=False)):
        if one != other:
            return index
    return min(len(before), len(after))


def _blocking(entries: list[Revocation]) -> list[Revocation]:
    """Those that block new leases and were not lifted among them."""
    lifted = {entry.order.lifts for entry in entries}
    return [entry for entry in entries if entry.order.block_new and entry.epoch not in lifted]


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
        self._lost: set[Revocation] = set()
        """Of those that were issued, what the centre has forgotten."""
        self._applied: dict[Any, set[Revocation]] = {}
        """By directory, all that was ever in force there; never less."""
        self._history: dict[Any, list[Revocation]] = {}
        """By directory, what its numbers mean."""
        self._blocks_aside: dict[Any, list[Revocation]] = {}
        """By directory, blocks that the centre has forgotten, until it lifts one of the same selector."""
        self._applied_by: set[Any] = set()
        """Processes of which that is known."""
        self._floor: dict[Any, int] = {}
        """R1: of each directory the epoch that was durable there."""
        self._most: dict[str, int] = {}
        """By sidecar, the highest epoch that was ever durable at any of its processes."""
        self._looked: dict[Any, int] = {}
        self._stands: dict[Any, tuple[list[Revocation], int, int]] = {}
        """Of each process: its entries, how many, and how many of them durable, when last looked at."""
        self.heard: dict[Any, Heard] = {}

    def collector_committed(self, connection: Any) -> None:
        """Note what was issued."""
        (newest,) = connection.execute("SELECT coalesce(max(epoch), 0) FROM revocations").fetchone()
        if newest <= len(self.issued):
            return
        cursor = connection.execute(f"{rows.REVOCATIONS} WHERE epoch > ? ORDER BY epoch", (len(self.issued),))
        names = [column[0] for column in cursor.description]
        for row in cursor.fetchall():
            entry = revocation(dict(zip(names, row, strict=True)))
            self.issued.append((entry, self._world.now_ns()))
            assert entry.epoch == len(self.issued), "R5: epochs have a hole at the centre"
            self._seen[f"revoked {type(entry.selector).__name__}"] += not entry.order.lifts
            self._seen["block lifted"] += bool(entry.order.lifts)
            self._world.trace("revoke", entry.epoch)

    def forgotten(self, kept: int) -> None:
        """The centre knows the first `kept` alone; what it issues next has the numbers of the others."""
        self._lost.update(entry for entry, _ in self.issued[kept:])
        del self.issued[kept:]

    def in_force(self, sidecar: Any) -> frozenset[Revocation]:
        """There, now."""
        self.look(sidecar)
        return frozenset(self._applied[sidecar.directory])

    # What a process hears.

    def watch(self, sidecar: Any) -> None:
        """A process starts: it has heard nothing."""
        self.heard[sidecar.process] = Heard()
        self._looked[sidecar.process] = 0

    def forget_floor(self, directory: Any) -> None:
        """The directory was put back or emptied: its past is another one."""
        for known in (self._floor, self._applied, self._history, self._blocks_aside):
            known.pop(directory, None)

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

    def look(self, sidecar: Any, *, at_all: bool = True) -> None:
        """After a step of this process: R1, R5, and what has to be cut now (R6). Not `at_all`: if any of it moved."""
        books, directory = sidecar.core.books, sidecar.directory
        stands = books.revocations, len(books.revocations), sidecar.core.revocations.applied_epoch()
        before = self._stands.get(sidecar.process)
        if not at_all and before is not None and before[0] is stands[0] and before[1:] == stands[1:]:
            self._acknowledged(sidecar)
            return
        self._stands[sidecar.process] = stands
        if sidecar.process not in self._applied_by:
            self._recovered(sidecar)
        known = self._set_aside(sidecar) if self._lost else self._looked[sidecar.process]
        durable = stands[2]
        floor = self._floor.get(directory, 0)
        assert durable >= floor, f"R1: {sidecar.name} fell from epoch {floor} to {durable}"
        self._floor[directory] = durable
        self._most[sidecar.name] = max(self._most.get(sidecar.name, 0), durable)
        self._acknowledged(sidecar)
        applied = self._applied.setdefault(directory, set())
        for index in range(known, len(books.revocations)):
            entry = books.revocations[index]
            assert entry.epoch == index + 1, f"R5: {sidecar.name} applied {entry.epoch} where {index + 1} was due"
            issued = index < len(self.issued) and entry == self.issued[index][0]
            assert issued or entry in self._lost, f"R5: {sidecar.name} applied a {entry.epoch} that was never issued"
            if not entry.order.lifts and entry not in applied:
                self._to_be_cut(sidecar, entry)
            self._took(directory, entry)
        self._looked[sidecar.process] = len(books.revocations)

    def _acknowledged(self, sidecar: Any) -> None:
        """R2: what the centre counts as applied at a sidecar was applied by one of its processes."""
        centre = self._world.centre
        member = centre.fleet.members.get(sidecar.name) if centre.up else None
        if member is not None and not self._lost:
            told, most = member.known.applied_epoch, self._most.get(sidecar.name, 0)
            assert told <= most, f"R2: {told} counts as applied at {sidecar.name}, which has applied {most}"

    def _recovered(self, sidecar: Any) -> None:
        """A process starts from what was durable: what it had applied in memory alone is not in force.

        What a dying process has just set aside nobody may have seen; what it was is in force all the same.
        """
        books, directory = sidecar.core.books, sidecar.directory
        aside = {_content(entry) for entry in books.revocations_set_aside}
        before = self._history.get(directory, [])
        agreed = _agreed(before, books.revocations)
        gone = before[agreed : self._floor.get(directory, 0)]
        assert self._lost.issuperset(gone), f"R1: {sidecar.name} lost in a restart what the centre has not forgotten"
        for entry in gone:
            assert entry.order.lifts or _content(entry) in aside, f"R2: {sidecar.name} has forgotten {entry.name}"
        if gone:
            self._floor[directory] = agreed
        self._history[directory] = list(books.revocations)
        self._applied[directory] = {*books.revocations, *(one for one in self._lost if _content(one) in aside)}
        blocks = [*self._blocks_aside.get(directory, []), *_blocking(gone)]
        self._blocks_aside[directory] = [block for block in blocks if _content(block) in aside]
        self._applied_by.add(sidecar.process)

    def _took(self, directory: Any, entry: Revocation) -> None:
        history = self._history.setdefault(directory, [])
        if len(history) < entry.epoch:
            history.append(entry)
            if entry.order.lifts:
                aside = self._blocks_aside.get(directory, [])
                aside[:] = [block for block in aside if block.selector != entry.selector]
        self._applied[directory].add(entry)

    def _set_aside(self, sidecar: Any) -> int:
        """The first index to look at: numbers may have been given up, and only what the centre has forgotten."""
        directory, now = sidecar.directory, sidecar.core.books.revocations
        history = self._history.get(directory, [])
        agreed = _agreed(history, now)
        if agreed == len(history):
            return min(self._looked[sidecar.process], agreed)
        gone = history[agreed:]
        assert self._lost.issuperset(gone), f"R1: {sidecar.name} gave up what the centre has not forgotten"
        self._seen["revocations set aside"] += len(gone)
        blocks = _blocking(gone)
        self._blocks_aside.setdefault(directory, []).extend(blocks)
        self._seen["block set aside"] += len(blocks)
        del history[agreed:]
        self._floor[directory] = min(self._floor.get(directory, 0), agreed)
        return min(self._looked[sidecar.process], agreed)

    def _to_be_cut(self, sidecar: Any, entry: Revocation) -> None:
        for call in sidecar.calls.values():
            if entry not in call.facts.known and hits(entry.selector, call.facts):
                self._seen["stream of a revoked lease"] += 1
                self._world.loop.call_later(CUT_SECONDS, self._must_be_cut, sidecar, call)

    def _must_be_cut(self, sidecar: Any, call: Any) -> None:
        assert sidecar.process.dead or call.ended, f"R6: call {call.id} at {sidecar.name} was not cut"

    def admitted(self, sidecar: Any, facts: LeaseFacts) -> None:
        """A call was let through on this lease; it was decided a few commits ago."""
        now = self._world.now_ns() - DECIDED_NS
        self._speaks(sidecar, now)
        applied = self._applied[sidecar.directory]
        for entry in self._lost & applied:
            forbids = not entry.order.lifts and hits(entry.selector, facts) and entry not in facts.known
            assert not forbids, f"R2: {sidecar.name} admitted a call that the forgotten {entry.name} forbids"
        bound = self._world.settings.authority_seconds * DRIFT * NANOS
        for entry, at_ns in self.issued:
            if entry in facts.known or entry.order.lifts or not hits(entry.selector, facts):
                continue
            assert entry not in applied, f"R2: {sidecar.name} admitted a call that {entry.name} forbids"
            late = (now - at_ns) / NANOS
            assert now - at_ns <= bound, f"R4: {sidecar.name} admitted {late:.1f} s after {entry.name}"

    def _speaks(self, sidecar: Any, now: int) -> None:
        silent = (now - self.heard[sidecar.process].until_ns) / NANOS
        assert silent <= 0, f"R3: {sidecar.name} granted something {silent:.2f} s after it last spoke for the centre"

    def lease_given(self, sidecar: Any, facts: LeaseFacts) -> None:
        """A new lease, by one who speaks for the centre (R3): nothing that is in force there blocks its like (R2).

        Nor by one that was banned longer ago than it may go on without being heard (R4).
        """
        now = self._world.now_ns() - DECIDED_NS
        self._speaks(sidecar, now)
        banned_ns = self._world.operators.banned_ns.get(sidecar.name)
        if banned_ns is not None:
            late = now - banned_ns - int(self._world.settings.authority_seconds * DRIFT * NANOS)
            assert late <= 0, f"R4: {sidecar.name} was banned, and gave a lease {late / NANOS:.1f} s too late"
        lifted = {entry.order.lifts for entry in sidecar.core.books.revocations}
        for entry in sidecar.core.books.revocations:
            blocks = entry.order.block_new and entry.epoch not in lifted
            assert not (blocks and hits(entry.selector, facts)), f"R2: {entry.name} blocks leases like {facts.trees}"
        for entry in self._blocks_aside.get(sidecar.directory, ()):
            assert not hits(entry.selector, facts), f"R2: the forgotten {entry.name} blocks leases like {facts.trees}"
