r"""The audit chain, checked by whoever holds a copy. Owns digest, export and verdict; asks no broker.

digest(n) = SHA-256("leasehold/audit/v1\0" || stream || 0x00 || epoch || 0x00 || n (8 bytes, big-endian) ||
previous digest (32 bytes) || body). The first record of an epoch has sequence 1 and 32 zero bytes as previous digest.

An export is a file of JSON lines, one record each: position, stream, epoch, sequence, previous_digest and digest (hex),
body (text: exactly the bytes that were hashed; empty when the collector has dropped it by its rule of retention: its
digest stays). A chain shows what was altered, removed or put in; only a head or a checkpoint that was kept elsewhere
shows that its end is missing.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from leasehold.audit_bodies import TwofoldBodies
from leasehold.audit_events import read_body
from leasehold.audit_gaps import DECLARES_GAP, Gaps
from leasehold.errors import InvalidRequest
from leasehold.v1 import audit_service_pb2 as audit

_DOMAIN = b"leasehold/audit/v1\0"
GENESIS = bytes(32)
_HEX = re.compile("(?:[0-9a-f]{2})*")
LINE_CHARACTERS_MAX = 4_000_000
LINE_DIGITS_MAX = 20
# Both engines drop bodies in the order of positions, up to the first that is young enough.
TAKEN_OUT = (
    "its content is gone, and that of an older event is not: retention drops the oldest first. If it ran while the copy"
    " was made, a new copy does not say this again"
)


@dataclass(frozen=True, slots=True)
class Record:
    """One record of one stream. `position` is its place in the collector's log, from 1; 0: unknown."""

    position: int
    stream: str
    epoch: str
    sequence: int
    previous_digest: bytes
    digest: bytes
    body: bytes

    @classmethod
    def of_event(cls, event: audit.StoredEvent) -> "Record":
        """From the collector's answer."""
        record = event.record
        return cls(
            event.position,
            record.stream,
            record.epoch,
            record.sequence,
            record.previous_digest,
            record.digest,
            record.body,
        )

    @classmethod
    def of_line(cls, line: str, number: int) -> "Record":
        """From line `number` of an export.

        Raises:
            InvalidRequest: not such a line.
        """
        try:
            if len(line) > LINE_CHARACTERS_MAX:
                raise ValueError("it is too long")  # noqa: TRY301 - one sentence for every way a line can be wrong
            members = json.loads(line, object_pairs_hook=_once, parse_int=_integer)
            return cls(
                integer_of(members["position"]),
                _name(members["stream"]),
                _name(members["epoch"]),
                integer_of(members["sequence"]),
                _hex(members["previous_digest"]),
                _hex(members["digest"]),
                _text(members["body"]).encode("utf-8", "surrogateescape"),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            field = f"line {number}"
            raise InvalidRequest.of_field(field, f"is no record of an audit export: {_why(error)}") from None

    def line(self) -> str:
        """As a line of an export, without the line's end."""
        return json.dumps(
            {
                "position": self.position,
                "stream": self.stream,
                "epoch": self.epoch,
                "sequence": self.sequence,
                "previous_digest": self.previous_digest.hex(),
                "digest": self.digest.hex(),
                "body": self.body.decode("utf-8", "surrogateescape"),
            },
            separators=(",", ":"),
        )

    def event(self) -> dict[str, Any]:
        """The body read: type, wall_ms, outcome, and what else the event has.

        Raises:
            InvalidRequest: the body is not a JSON object.
        """
        body = read_body(self.body)
        if body is None:
            raise InvalidRequest.of_field("body", f"of record {self.position} is not a JSON object")
        return body

    def entry(self) -> bytes:
        """The entry in the Merkle log: everything but the body."""
        return (
            self.stream.encode("utf-8", "surrogateescape")
            + b"\0"
            + self.epoch.encode("utf-8", "surrogateescape")
            + b"\0"
            + self.sequence.to_bytes(8, "big")
            + self.previous_digest
            + self.digest
        )

    def computed_digest(self) -> bytes:
        """What the digest must be."""
        return hashlib.sha256(
            _DOMAIN
            + self.stream.encode("utf-8", "surrogateescape")
            + b"\0"
            + self.epoch.encode("utf-8", "surrogateescape")
            + b"\0"
            + self.sequence.to_bytes(8, "big")
            + self.previous_digest
            + self.body
        ).digest()


def _why(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"it is not JSON at character {error.pos + 1}"
        case KeyError():
            return f"it has no {error.args[0]!r}"
        case TypeError():
            return "it is no JSON object"
        case RecursionError():
            return "it is nested too deeply"
        case UnicodeEncodeError():
            return "a name or a body has half of a character, a lone surrogate"
        case _:
            return str(error)


def integer_of(value: object) -> int:
    """A place or a number of records. Raises ValueError."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("a number is no whole number from 0 to 2^63 - 1")
    return value


def _integer(digits: str) -> int:
    """As JSON writes it: a number of thousands of digits is none of ours, and is not worked out."""
    return integer_of(int(digits) if len(digits) < LINE_DIGITS_MAX else None)


def digest_of(value: object) -> bytes:
    """Of its text. Raises ValueError."""
    digest = _hex(value)
    if len(digest) != len(GENESIS):
        raise ValueError("a digest is not 32 bytes long")
    return digest


def _hex(value: object) -> bytes:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise ValueError("a digest is not in lower-case hexadecimal")
    return bytes.fromhex(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no name stands twice: readers differ in which of the two they take."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("a name or a body is no text")
    return value


def _name(value: object) -> str:
    """A text that has bytes: the chain is over them. Raises ValueError."""
    name = _text(value)
    name.encode("utf-8", "surrogateescape")
    return name


@dataclass(frozen=True, slots=True)
class Head:
    """The last record that a stream's epoch is known to have had.

    `tail_unknown`: a newer epoch began, and nobody has said that this one had no more records.
    """

    stream: str
    epoch: str
    sequence: int
    digest: bytes
    tail_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Flaw:
    """The first thing that is wrong.

    Args:
        where: "line 7" or "position 7", and the record's stream, epoch and sequence.
        what: in words.
    """

    where: str
    what: str


@dataclass(slots=True)
class Verdict:
    """What was checked.

    Args:
        records: how many held.
        heads: the last good record of each stream and epoch.
        flaw: the first bad entry; None when all hold.
        unseen: kept heads that the copy does not reach, or contradicts; the copy is cut short or forked.
        hash_only: of the records that held, how many have no body any more: their content could not be checked.
        gaps: losses that the collector itself declared, in words.
        held: sizes of the checkpoints that the log agrees with.
        wrong: what contradicts a checkpoint, in words.
        witnessed: which checkpoint witnesses have cosigned, in words.
        twofold: bodies that two readers may read differently, where bodies were read.
    """

    records: int = 0
    hash_only: int = 0
    heads: dict[tuple[str, str], Head] = field(default_factory=dict)
    flaw: Flaw | None = None
    unseen: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    witnessed: list[str] = field(default_factory=list)
    twofold: TwofoldBodies = field(default_factory=TwofoldBodies)

    @property
    def holds(self) -> bool:
        """True when nothing is wrong."""
        return self.flaw is None and not self.unseen and not self.wrong


class Kept:
    """Heads that were kept elsewhere, until the log has come to them. Of two of one place one may be wrong."""

    def __init__(self, heads: Iterable[Head]) -> None:
        """None met yet."""
        self._heads: dict[tuple[str, str, int], list[Head]] = {}
        for head in heads:
            self._heads.setdefault((head.stream, head.epoch, head.sequence), []).append(head)

    def __bool__(self) -> bool:
        """Whether one is still to be met."""
        return bool(self._heads)

    def met(self, stream: str, epoch: str, sequence: int, digest: bytes) -> str:
        """What is wrong with a record that stands where one was kept; "" when it is that one, or none was."""
        heads = self._heads.pop((stream, epoch, sequence), ())
        if all(head.digest == digest for head in heads):
            return ""
        return "its digest is not the one that was kept: the log was rewritten from here or before"

    def rest(self) -> list[Head]:
        """Those that were not met."""
        return [head for heads in self._heads.values() for head in heads]


def records_of(lines: Iterable[str]) -> Iterator[tuple[str, Record]]:
    """The records of an export, each with "line N". Raises InvalidRequest at the first line that is none."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"line {number}", Record.of_line(line, number)


def verify(records: Iterable[tuple[str, Record]], kept: Iterable[Head] = (), *, partial: bool = False) -> Verdict:
    """Check every link, stop at the first bad one.

    Args:
        records: each with where it stands; streams may be mixed, each in its own order.
        kept: heads that were noted elsewhere; the records must reach each of them and agree with it.
        partial: the records may begin in the middle of an epoch.
    """
    verdict = Verdict()
    wanted = Kept(kept)
    position, content = 0, False
    gaps = Gaps()
    verdict.gaps = gaps.used
    for where, record in records:
        last = verdict.heads.get((record.stream, record.epoch))
        what = _broken(record, last, position, gaps, partial=partial)
        stays = DECLARES_GAP in record.body and gaps.declare(record.body)
        if what is None and content and not record.body:
            what = TAKEN_OUT
        content = content or bool(record.body and not stays)
        other = wanted.met(record.stream, record.epoch, record.sequence, record.digest)
        what = what or other
        if what:
            place = f"{where} (stream {record.stream}, epoch {record.epoch}, sequence {record.sequence})"
            verdict.flaw = Flaw(place, what)
            return verdict
        verdict.twofold.look(record.body, where)
        position = record.position or position
        verdict.records += 1
        verdict.hash_only += not record.body
        verdict.heads[record.stream, record.epoch] = Head(record.stream, record.epoch, record.sequence, record.digest)
    verdict.unseen += unreached(wanted.rest(), verdict)
    return verdict


def unreached(kept: Iterable[Head], verdict: Verdict) -> Iterator[str]:
    """In words, the kept heads that a copy should have reached and did not."""
    for head in kept:
        last = verdict.heads.get((head.stream, head.epoch))
        reached = f"ends at sequence {last.sequence}" if last else "is not there at all"
        yield f"stream {head.stream}, epoch {head.epoch} {reached}, but sequence {head.sequence} was known to exist"


def _broken(record: Record, last: Head | None, position: int, gaps: Gaps, *, partial: bool) -> str | None:
    if record.position and record.position <= position:
        return f"its position {record.position} does not come after {position}"
    if record.sequence < 1 or "\0" in record.stream + record.epoch:
        return "its place in the stream is no place"
    if len(record.previous_digest) != len(GENESIS) or len(record.digest) != len(GENESIS):
        return "a digest is not 32 bytes long"
    misplaced = None if last is None and partial else gaps.explain(*_link(record, last))
    if not misplaced and record.body and record.digest != record.computed_digest():
        return "it was altered: its digest does not match its content"
    return misplaced or None


def _link(record: Record, last: Head | None) -> tuple[str, str, int, bytes, int, bytes]:
    due, previous = (last.sequence + 1, last.digest) if last else (1, GENESIS)
    return record.stream, record.epoch, due, previous, record.sequence, record.previous_digest


def heads_of(text: str) -> list[Head]:
    """Heads as `leasehold audit heads --json` writes them: JSON lines with stream, epoch, sequence, digest.

    Raises:
        InvalidRequest: not that.
    """
    heads = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            members = json.loads(line, object_pairs_hook=_once, parse_int=_integer)
            digest = digest_of(members["digest"])
            place = _name(members["stream"]), _name(members["epoch"]), integer_of(members["sequence"])
            heads.append(Head(*place, digest))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            field = f"line {number} of the heads"
            raise InvalidRequest.of_field(field, f"is not a head: {_why(error)}") from None
    return heads


def head_line(head: Head) -> str:
    """One head as a line for `heads_of`."""
    return json.dumps(
        {"stream": head.stream, "epoch": head.epoch, "sequence": head.sequence, "digest": head.digest.hex()},
        separators=(",", ":"),
    )
