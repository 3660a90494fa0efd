"""Take security events of other systems as revocations. Owns that the same event has one effect, and a bound on them.

Each revocation has a request id made of issuer and `jti`: an event that is sent again, after hours or a restart, gives
the revocation that it gave before, and brings back no block that was lifted since.
"""

import uuid
from collections import OrderedDict, deque

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.key_shapes import without_secrets
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import ByKey, Cause, Order, Selector
from leasehold_broker.domain.security_events import (
    SecurityEvent,
    SetError,
    SetRefusedError,
    SignalRule,
    selector_of,
)
from leasehold_broker.domain.selector_words import to_words
from leasehold_broker.domain.time import NANOS
from leasehold_broker.flows.issue_revocation import check_selector
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.ports.revocation_issuer import RevocationDraft, RevocationIssuer

TAKEN_MAX = 10_000
"""Tokens remembered as taken, so that one that is sent again is no second event in the log."""
HOUR_NANOS = 3600 * NANOS
_NAMESPACE = uuid.UUID("0c1d8b52-6f0e-4d19-8a4f-7f0a9a3b6f60")


class ReceiveSignals:
    """Takes verified events."""

    def __init__(self, issuer: RevocationIssuer, events: EventLog, clock: Clock) -> None:
        """Revoke through this issuer; what is taken and refused leaves its event in `events`."""
        self._issuer = issuer
        self._events = events
        self._clock = clock
        self._taken: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._issued_ns: dict[str, deque[int]] = {}

    async def take(self, event: SecurityEvent, rule: SignalRule) -> None:
        """Revoke what it says; returns once that is durable.

        Raises:
            SetRefusedError: it names nobody that this rule knows; recorded.
            Refusal: RATE_LIMITED (too many within the hour), STORE_UNAVAILABLE, OVERLOADED: to be sent again later.
        """
        key = (event.issuer, event.token_id)
        if key in self._taken:
            return
        try:
            selector = _checked(selector_of(event, rule))
        except SetRefusedError as refused:
            await self.refused(rule, refused, event)
            raise
        if selector is not None:
            await self._revoke(selector, event, rule)
        details: dict[str, Detail] = {"token_id": event.token_id, "event": event.type}
        if selector is not None:
            details["selector"] = to_words(selector)
        await self._record(EventType.SIGNAL_RECEIVED, Outcome.ALLOWED, rule, details)
        self._taken[key] = None
        while len(self._taken) > TAKEN_MAX:
            self._taken.popitem(last=False)

    async def refused(self, rule: SignalRule, refused: SetRefusedError, event: SecurityEvent | None = None) -> None:
        """Make a refusal durable.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        details: dict[str, Detail] = {"error": refused.error.value, "message": refused.description}
        if event is not None:
            details |= {"token_id": event.token_id, "event": event.type}
        await self._record(EventType.SIGNAL_REFUSED, Outcome.DENIED, rule, details)

    async def _revoke(self, selector: Selector, event: SecurityEvent, rule: SignalRule) -> None:
        now = self._clock.now()
        issued = self._issued_ns.setdefault(rule.name, deque())
        while issued and now.boot_ns - issued[0] >= HOUR_NANOS:
            issued.popleft()
        if len(issued) >= rule.revocations_per_hour_max:
            raise Refusal(
                Reason.RATE_LIMITED,
                f"{len(issued)} events of {rule.name!r} have revoked within the hour, the most allowed; send it later",
                retry_after_seconds=max(1.0, (issued[0] + HOUR_NANOS - now.boot_ns) / NANOS if issued else 3600.0),
            )
        kind = event.type.rpartition("/")[2]
        cause = Cause.KEY_LEAKED if isinstance(selector, ByKey) else Cause.AGENT_COMPROMISED
        order = Order(cause, block_new=rule.block_new, block_seconds=rule.block_seconds if rule.block_new else 0)
        draft = RevocationDraft(
            selector,
            without_secrets(f"{kind} from {rule.name}")[:200],
            f"signals of {rule.name}",
            str(uuid.uuid5(_NAMESPACE, f"{event.issuer} {event.token_id}")),
            now.wall_ms,
            Subject(event.issuer, rule.name),
            order,
        )
        try:
            await self._issuer.issue(draft)
        except Refusal as refusal:
            if refusal.reason is not Reason.REQUEST_ID_REUSED:
                raise
            refused = SetRefusedError(SetError.INVALID_REQUEST, "'jti' was used for another event")
            await self.refused(rule, refused, event)
            raise refused from None
        issued.append(now.boot_ns)

    async def _record(self, type_: EventType, outcome: Outcome, rule: SignalRule, details: dict[str, Detail]) -> None:
        subject = Subject(rule.issuer, rule.name)
        await self._events.record(
            Event(type_, self._clock.now().wall_ms, outcome, subject=subject, details={"rule": rule.name, **details})
        )


def _checked(selector: Selector | None) -> Selector | None:
    if selector is not None:
        try:
            check_selector(selector)
        except Refusal as refusal:
            raise SetRefusedError(SetError.INVALID_REQUEST, refusal.message) from None
    return selector
