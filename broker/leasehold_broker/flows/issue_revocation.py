"""Revoke leases. Owns the checks of what a responder asks for, and the events; the issuer port does the rest.

The same flow serves the collector and a sidecar that runs alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never
from uuid import UUID

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.key_shapes import without_secrets
from leasehold_broker.domain.lease import LEASE_PREFIX
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.domain.revocation import (
    PLAIN,
    ByEnvironment,
    ByKey,
    ByLabel,
    ByLease,
    ByProvider,
    BySidecar,
    BySubject,
    Everything,
    Order,
    Revocation,
    Selector,
)
from leasehold_broker.domain.revocation_progress import RevocationProgress
from leasehold_broker.domain.rotation import DisabledKey
from leasehold_broker.domain.scope import ANYTHING
from leasehold_broker.domain.selector_words import order_to_words, to_words
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.ports.revocation_issuer import MatchingLeases, RevocationDraft, RevocationIssuer

NAME_LENGTH_MAX = 256
NOTE_LENGTH_MAX = 500
BLOCK_SECONDS_MAX = 366 * 24 * 3600
SELECTORS_MAX = 1000


@dataclass(frozen=True, slots=True)
class IssuedRevocation:
    """What a responder gets.

    Args:
        progress: of the entry, or of the last of several, with what all of them have ended; None on a dry run.
        matching: the live leases that matched just before.
        first_name: of the first entry of several; "" on a dry run.
    """

    progress: RevocationProgress | None
    matching: MatchingLeases
    first_name: str = ""


class IssueRevocation:
    """One revocation for each request id, or several."""

    def __init__(self, issuer: RevocationIssuer, events: EventLog, clock: Clock) -> None:
        """Issue through this issuer; dry runs leave their event in `events`."""
        self._issuer = issuer
        self._events = events
        self._clock = clock

    async def run(
        self,
        identity: Identity,
        request_id: str,
        selector: Selector,
        note: str,
        *,
        order: Order = PLAIN,
        leases_max: int | None = None,
        disables: DisabledKey | None = None,
        validate_only: bool,
    ) -> IssuedRevocation:
        """Revoke, or with `validate_only` say what would die and change nothing but the audit log.

        Args:
            identity: the responder.
            request_id: UUID; the same one is the same revocation.
            selector: what dies.
            note: why, in words.
            order: what else.
            disables: with a key: what is to be switched off at its provider too.
            leases_max: refuse when more live leases match, or when it is not known how many; None: whatever matches.
            validate_only: change nothing.

        Raises:
            Refusal: FIELD_INVALID, EXPECTED_COUNT_MISMATCH, REQUEST_ID_REUSED, STORE_UNAVAILABLE, OVERLOADED.
        """
        check_selector(selector)
        asked = _Asked(identity, request_id, (selector,), note, order, leases_max, disables)
        return await self._run(asked, {"selector": to_words(selector)}, validate_only=validate_only)

    async def run_all(
        self,
        identity: Identity,
        request_id: str,
        selectors: Sequence[Selector],
        note: str,
        *,
        order: Order = PLAIN,
        leases_max: int | None = None,
        validate_only: bool,
    ) -> IssuedRevocation:
        """As `run`, for several selectors: an entry for each, in their order, all or none.

        Each is lifted by itself and found by itself in the log. They follow each other without a gap, so that whoever
        has applied the last has applied them all. Note and order are of each, `leases_max` is of all together.

        Raises:
            Refusal: as `run`; FIELD_INVALID: none, more than SELECTORS_MAX, or everything among them.
        """
        _check_selectors(selectors)
        asked = _Asked(identity, request_id, tuple(selectors), note, order, leases_max, None)
        return await self._run(asked, {"selectors": len(selectors)}, validate_only=validate_only)

    async def _run(self, asked: "_Asked", details: dict[str, Detail], *, validate_only: bool) -> IssuedRevocation:
        check_note(asked.note)
        check_request_id(asked.request_id)
        _check_order(asked.order)
        now = self._clock.now().wall_ms
        if asked.leases_max is not None:
            _check_count(await self._issuer.matching(*asked.selectors), asked.leases_max)
        if validate_only:
            matching = await self._issuer.matching(*asked.selectors)
            details |= {"matching": len(matching.names)}
            if asked.disables is not None:
                details |= _disabling(asked.disables)
            validated, whose = EventType.REVOCATION_VALIDATED, asked.identity.subject
            await self._events.record(
                Event(validated, now, Outcome.ALLOWED, subject=whose, request_id=asked.request_id, details=details)
            )
            return IssuedRevocation(None, matching)
        entries = await self._issuer.issue_all(asked.drafts(now))
        # Counted while it is on its way, from what was reported before: nobody's death waits for a number.
        matching = await self._issuer.matching(*asked.selectors)
        first, last = entries[0], entries[-1]
        progress = await self._issuer.progress(last.epoch, first.epoch)
        if progress is None:
            raise Refusal(Reason.STORE_UNAVAILABLE, f"{last.name} was issued but cannot be read; ask for it again")
        return IssuedRevocation(progress, matching, first.name)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a responder asks for, as the arguments of `IssueRevocation.run` say."""

    identity: Identity
    request_id: str
    selectors: tuple[Selector, ...]
    note: str
    order: Order
    leases_max: int | None
    disables: DisabledKey | None

    def drafts(self, wall_ms: int) -> list[RevocationDraft]:
        """One for each selector. Whoever asks for one alone under the same id asks for the first."""
        subject = self.identity.subject
        by = shown_as(subject)
        return [
            RevocationDraft(selector, self.note, by, request_id, wall_ms, subject, self.order, self.disables)
            for selector, request_id in zip(
                self.selectors, ids_of_several(self.request_id, len(self.selectors)), strict=True
            )
        ]


def ids_of_several(request_id: str, count: int) -> list[str]:
    """An id for each entry that one request asks for."""
    return [f"{request_id}/{place}" if place else request_id for place in range(count)]


def shown_as(subject: Subject) -> str:
    """How an operator is named in entries: subject and issuer, both verified."""
    return f"{subject.subject} ({subject.issuer})"


def issued_event(entry: Revocation, draft: RevocationDraft) -> Event:
    """The event that is committed with an entry."""
    words = to_words(entry.selector)
    details: dict[str, Detail] = {
        "epoch": entry.epoch,
        "selector": words,
        "note": entry.note,
        "revoked_by": entry.revoked_by,
        **order_to_words(entry.order),
    }
    lease = entry.selector.lease if isinstance(entry.selector, ByLease) else ""
    if isinstance(entry.selector, ByKey):
        details["key"] = entry.selector.key
        if draft.disables is not None:
            details |= _disabling(draft.disables)
    return Event(
        EventType.REVOCATION_ISSUED,
        entry.create_wall_ms,
        Outcome.ALLOWED,
        subject=draft.responder,
        lease=lease,
        request_id=draft.request_id,
        details=details,
    )


def _disabling(key: DisabledKey) -> dict[str, Detail]:
    how: dict[str, Detail] = {} if key.switch_off is None else {"disable_key_by": key.switch_off.value}
    return {"disable_key": True, "disable_key_id": key.id, "disable_key_version": key.version, **how}


def check_selector(selector: Selector) -> None:
    """Refuse what can match nothing, or more than its words say.

    Raises:
        Refusal: FIELD_INVALID.
    """
    match selector:
        case ByLease(lease):
            _check_name("selector.lease", lease)
            if not lease.startswith(LEASE_PREFIX) or lease == LEASE_PREFIX:
                # Not quoted: who mistakes the token for the name must not find it in an error or event.
                raise field_invalid("selector.lease", f"must be a lease's name, like {LEASE_PREFIX}<id>")
        case BySubject(issuer, subject):
            _check_subject(issuer, subject)
        case ByKey(name):
            _check_name("selector.key", name)
        case ByProvider(name):
            _check_name("selector.provider", name)
        case ByEnvironment(name):
            _check_name("selector.environment", name)
        case ByLabel(name, value):
            _check_name("selector.label.name", name)
            _check_name("selector.label.value", value)
        case BySidecar(name):
            _check_name("selector.sidecar", name)
        case Everything():
            return
        case _:
            assert_never(selector)


def _check_selectors(selectors: Sequence[Selector]) -> None:
    if not 0 < len(selectors) <= SELECTORS_MAX:
        raise field_invalid("selectors", f"must be 1 to {SELECTORS_MAX}, were {len(selectors)}; ask several times")
    for place, selector in enumerate(selectors):
        name = f"selectors[{place}]"
        if isinstance(selector, Everything):
            raise field_invalid(name, "is everything, which needs no others; ask for it alone")
        try:
            check_selector(selector)
        except Refusal as refusal:
            raise field_invalid(name, refusal.message) from None


def _check_subject(issuer: str, subject: str) -> None:
    if issuer:
        _check_name("selector.subject.issuer", issuer)
    _check_name("selector.subject.subject", subject)
    if ANYTHING in subject[:-1]:
        raise field_invalid("selector.subject.subject", 'may have one "*", at its end')
    if subject == ANYTHING and not issuer:
        raise field_invalid("selector.subject", 'subject "*" of any issuer is every lease; use "everything" to say so')


def check_note(note: str) -> None:
    """Bounded and printable.

    Raises:
        Refusal: FIELD_INVALID.
    """
    if len(note) > NOTE_LENGTH_MAX:
        raise field_invalid("note", f"must be at most {NOTE_LENGTH_MAX} characters, was {len(note)}")
    if not note.isprintable():
        raise field_invalid("note", "must be one line of printable characters")
    if without_secrets(note) != note:
        raise field_invalid(
            "note", "looks like it holds a key or a token; it is kept in the audit log, so leave that out"
        )


def check_request_id(request_id: str) -> None:
    """One canonical UUID.

    Raises:
        Refusal: FIELD_INVALID.
    """
    try:
        canonical = str(UUID(request_id)) == request_id
    except ValueError:
        canonical = False
    if not canonical:
        raise field_invalid("request_id", "must be a UUID in its usual lower-case form; make a new one per revocation")


def _check_order(order: Order) -> None:
    if order.block_seconds and not order.block_new:
        raise field_invalid("block_duration", "is given without block_new; set both, or neither")
    if not 0 <= order.block_seconds <= BLOCK_SECONDS_MAX:
        raise field_invalid("block_duration", f"must be 1 to {BLOCK_SECONDS_MAX} s, was {order.block_seconds} s")


def _check_count(matching: MatchingLeases, leases_max: int) -> None:
    if leases_max < 0:
        raise field_invalid("leases_max", f"must not be negative, was {leases_max}")
    if not matching.complete:
        raise Refusal(
            Reason.EXPECTED_COUNT_MISMATCH,
            f"a sidecar holds more live leases than it lists, so whether at most {leases_max} match is not known; "
            "nothing was revoked; narrow the selector, or leave the expected count out",
        )
    if len(matching.names) > leases_max:
        raise Refusal(
            Reason.EXPECTED_COUNT_MISMATCH,
            f"{len(matching.names)} live leases match, more than the {leases_max} expected; nothing was revoked; "
            "look at them with a dry run, then expect that many",
        )


def _check_name(field: str, name: str) -> None:
    if not 0 < len(name) <= NAME_LENGTH_MAX:
        raise field_invalid(field, f"must be 1 to {NAME_LENGTH_MAX} characters, was {len(name)}")
    if not name.isprintable() or name != name.strip():
        raise field_invalid(field, "must be printable, without space around it")
