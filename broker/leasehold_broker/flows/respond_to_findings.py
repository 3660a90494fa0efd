"""What is done about a finding besides telling it. Owns the bound on it: a bad rule must not stop the whole fleet.

Revocations go the way of every other one: an entry with the next epoch, its event, every sidecar. Each has a request id
made of the event that caused it, so that looking at the same event again gives the same revocation.
"""

import uuid
from collections import deque

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.key_shapes import without_secrets
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.responses import Response, ResponseRules
from leasehold_broker.domain.revocation import ByLease, BySubject, Cause, Order, Selector
from leasehold_broker.domain.scope import ANYTHING
from leasehold_broker.domain.selector_words import to_words
from leasehold_broker.flows.issue_revocation import NOTE_LENGTH_MAX, check_selector
from leasehold_broker.flows.read_revocations import EPOCH_MAX
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.revocation_issuer import RevocationDraft, RevocationIssuer

HOUR_MS = 3_600_000
LOOK_BACK = 1000
"""Entries that are looked at after a restart for what was revoked within the hour."""
AGAIN_MS = 600_000
"""The same lease or subject is not revoked again for this time: one that goes on must not use the bound up."""
BY = "the rules for findings"
_NAMESPACE = uuid.UUID("6d0f2f0e-7d0e-4f0c-9a53-0d5f8c0f7a11")


class RespondToFindings:
    """Revokes, within the bound."""

    def __init__(self, issuer: RevocationIssuer, rules: ResponseRules, clock: Clock) -> None:
        """Revoke through this issuer; the clock says what was within the hour, after a restart."""
        self._issuer = issuer
        self._clock = clock
        self._rules = rules
        self._issued: deque[tuple[int, str]] = deque()
        self.revoked = 0
        self.withheld = 0

    async def resume(self) -> None:
        """Count what earlier lives have revoked within the hour.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        now_wall_ms = self._clock.now().wall_ms
        self._issued.clear()
        for entry in reversed(await self._issuer.page(EPOCH_MAX, LOOK_BACK)):
            if entry.revoked_by == BY and now_wall_ms - entry.create_wall_ms < HOUR_MS:
                self._issued.append((entry.create_wall_ms, str(to_words(entry.selector))))

    async def run(self, kind: str, finding: Event, place: str, wall_ms: int) -> list[Event]:
        """Do what the rules say about this finding.

        Args:
            kind: its name in the rules.
            finding: the event.
            place: of what caused it, in the log.
            wall_ms: when it was received.

        Returns:
            What the log should say besides the revocation's own event.

        Raises:
            Refusal: STORE_UNAVAILABLE; then nothing was revoked, or the same will be again.
        """
        response = self._rules.by_kind.get(kind, Response.TELL)
        selector = _selector(response, finding)
        if response is Response.TELL:
            return []
        if selector is None:
            return [self._withheld(finding, wall_ms, "neither a lease nor one subject is known")]
        words = str(to_words(selector))
        while self._issued and wall_ms - self._issued[0][0] >= HOUR_MS:
            self._issued.popleft()
        if any(one == words and 0 <= wall_ms - when < AGAIN_MS for when, one in self._issued):
            return []
        if len(self._issued) >= self._rules.revocations_per_hour_max:
            return [
                self._withheld(finding, wall_ms, f"{len(self._issued)} were revoked within the hour, the most allowed")
            ]
        try:
            check_selector(selector)
        except Refusal as refusal:
            return [self._withheld(finding, wall_ms, refusal.message)]
        await self._issuer.issue(self._draft(selector, kind, finding, place, wall_ms))
        self._issued.append((wall_ms, words))
        self.revoked += 1
        return []

    def _draft(self, selector: Selector, kind: str, finding: Event, place: str, wall_ms: int) -> RevocationDraft:
        said = f"{finding.type}: {finding.details.get('message', '')}"
        note = "".join(letter if letter.isprintable() else " " for letter in without_secrets(said))[:NOTE_LENGTH_MAX]
        blocks = isinstance(selector, BySubject)
        cause = Cause.OVERSPENDING if kind == "spend_rate" else Cause.AGENT_COMPROMISED
        order = Order(cause, block_new=blocks, block_seconds=self._rules.block_seconds if blocks else 0)
        request_id = str(uuid.uuid5(_NAMESPACE, f"{place} {kind}"))
        return RevocationDraft(selector, note, BY, request_id, wall_ms, order=order)

    def _withheld(self, finding: Event, wall_ms: int, why: str) -> Event:
        self.withheld += 1
        details: dict[str, Detail] = {
            "finding": finding.type.value,
            "message": f"{finding.type}: nothing was revoked: {why}",
        }
        return Event(
            EventType.FINDING_RESPONSE_WITHHELD,
            wall_ms,
            Outcome.DENIED,
            subject=finding.subject,
            lease=finding.lease,
            details=details,
        )


def _selector(response: Response, finding: Event) -> Selector | None:
    subject = finding.subject
    # A subject that is spelt like a pattern would take others with it.
    exact = subject is not None and ANYTHING not in subject.subject
    if response is Response.BLOCK_SUBJECT and subject is not None and exact:
        return BySubject(subject.issuer, subject.subject)
    return ByLease(finding.lease) if finding.lease else None
