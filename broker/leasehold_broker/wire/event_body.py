"""Events as canonical JSON: the bytes that are hashed, stored, shipped and exported. Owns the body's keys and order.

Canonical means: UTF-8, keys sorted, no white space, integers only (no floats), absent values left out. The same event
always gives the same bytes.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from leasehold_broker.domain.audit_chain import ChainEnd
from leasehold_broker.domain.checked_record import EventColumns
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason

_ENCODER = msgspec.json.Encoder(order="sorted")


def encode_event(event: Event) -> bytes:
    """The canonical body of one event."""
    body: dict[str, object] = {"type": event.type, "wall_ms": event.wall_ms, "outcome": event.outcome}
    if event.reason is not None:
        body["reason"] = event.reason
    if event.subject is not None:
        subject: dict[str, object] = {"issuer": event.subject.issuer, "subject": event.subject.subject}
        if event.subject.labels:
            subject["labels"] = event.subject.labels
        body["subject"] = subject
    if event.lease:
        body["lease"] = event.lease
    if event.request_id:
        body["request_id"] = event.request_id
    if event.details:
        body["details"] = event.details
    return _ENCODER.encode(body)


class _SubjectOfAll(msgspec.Struct):
    issuer: str
    subject: str
    labels: dict[str, str] = {}


class _Whole(msgspec.Struct):
    type: EventType
    wall_ms: int
    outcome: Outcome
    reason: Reason | None = None
    subject: _SubjectOfAll | None = None
    lease: str = ""
    request_id: str = ""
    details: dict[str, Any] = {}


_WHOLE = msgspec.json.Decoder(_Whole)


def decode_event(body: bytes) -> Event:
    """The event that a canonical body holds.

    Raises:
        ValueError: none, or of a type or reason that this version does not know.
    """
    try:
        whole = _WHOLE.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None
    subject = None
    if whole.subject is not None:
        subject = Subject(whole.subject.issuer, whole.subject.subject, whole.subject.labels)
    return Event(
        whole.type,
        whole.wall_ms,
        whole.outcome,
        whole.reason,
        subject,
        whole.lease,
        whole.request_id,
        whole.details,
    )


class _Scope(msgspec.Struct, gc=False):
    key: str = ""


class _Details(msgspec.Struct, gc=False):
    key: str = ""
    scopes: list[_Scope] = []
    previous_epoch: str = ""
    previous_sequence: int = 0
    previous_digest: str = ""


class _Subject(msgspec.Struct, gc=False):
    issuer: str = ""
    subject: str = ""


class _Body(msgspec.Struct, gc=False):
    type: str
    wall_ms: int
    outcome: str
    lease: str = ""
    subject: _Subject | None = None
    details: _Details | None = None


_DECODER = msgspec.json.Decoder(_Body)
_NEW = tuple.__new__
"""EventColumns() would be one more call, for every record that comes."""
WALL_MS_MAX = 2**53
NESTING_MAX = 32
"""Ours nest five deep. Whoever reads an event must not run out of stack, however deep in a program it is read."""
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def checked_columns(bodies: Sequence[bytes]) -> list[EventColumns]:
    """`event_columns` of bodies that the log may take: whoever wrote them, every export of the log can hold them.

    What can be asked of all of them at once is. Whose text is whole is known of all, as each begins and ends in ASCII.

    Raises:
        ValueError: one is not an event's body, more than one line, or too deep.
    """
    together = b"".join(bodies)
    if (
        b"\n" in together or b"\r" in together
    ):  # between tokens: what follows would look like a record in a file of lines
        message = "an event's body must be one line"
        raise ValueError(message)
    if not together.isascii():
        together.decode()  # members that are skipped are not checked for UTF-8, and an export is text
    found = []
    lists = b"[" in together
    for body in bodies:
        if body.count(b"{") + (body.count(b"[") if lists else 0) > NESTING_MAX:
            _refuse_depth(body)
        found.append(_columns(body))
    return found


def event_columns(body: bytes) -> EventColumns:
    """Read what is queried by out of a canonical body, whoever wrote it.

    Raises:
        ValueError: not an event's body.
    """
    body.decode()  # members that are skipped are not checked for UTF-8, and an export is text
    return _columns(body)


def _columns(body: bytes) -> EventColumns:
    try:
        event = _DECODER.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if not 0 <= event.wall_ms <= WALL_MS_MAX:
        message = f"wall_ms {event.wall_ms} is outside [0, {WALL_MS_MAX}]"
        raise ValueError(message)
    of, details = event.subject, event.details
    issuer, subject = ("", "") if of is None else (of.issuer, of.subject)
    keys: tuple[str, ...] = ()
    previous = None
    if details is not None:
        if details.key:
            keys = (details.key,)
        elif details.scopes:
            keys = tuple({scope.key: None for scope in details.scopes if scope.key})
        if details.previous_epoch and event.type == EventType.SIDECAR_STARTED:
            previous = _previous(details)
    return _NEW(EventColumns, (event.type, event.wall_ms, event.outcome, event.lease, issuer, subject, keys, previous))


def _refuse_depth(body: bytes) -> None:
    depth = 0
    for byte in _STRINGS.sub(b"", body):
        depth += (byte in b"[{") - (byte in b"]}")
        if depth > NESTING_MAX:
            message = f"an event's body nests deeper than {NESTING_MAX}"
            raise ValueError(message)


def _previous(details: _Details) -> ChainEnd:
    return ChainEnd(details.previous_epoch, details.previous_sequence, bytes.fromhex(details.previous_digest))
