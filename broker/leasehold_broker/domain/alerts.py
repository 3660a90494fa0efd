"""What a human is told of the audit log. Owns which events alert, how urgently, in which words, and how often.

An alert says what was seen, what is usual where known, and what to do. Its key names the trouble, not the event:
two alerts with one key within the window are one. An event that ends a trouble resolves its key.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from leasehold_broker.domain.events import Event, EventType
from leasehold_broker.domain.key_shapes import without_secrets
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.values import value

TEXT_CHARACTERS_MAX = 600
NAME_CHARACTERS_MAX = 128
KEY_CHARACTERS_MAX = 255
OPEN_KEYS_MAX = 10_000
"""Keys remembered for each endpoint; the ones that were silent longest are forgotten first."""


class Severity(StrEnum):
    """How urgent: the four words of PagerDuty's event format, least urgent first."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for the least urgent."""
        return list(Severity).index(self)


@value
class Alert:
    """One thing to tell.

    Args:
        key: names the trouble; at most KEY_CHARACTERS_MAX.
        severity: how urgent.
        resolves: the trouble is over.
        title: one line: what happened, to whom.
        seen, usual, advice: one sentence each; "" where there is nothing to say.
        type: of the event.
        place: of the event in the log: stream, epoch, sequence.
        wall_ms: when, as the event says.
        subject, lease: whose, or "".
        repeated: how many with this key were held back since the last one that was told.
    """

    key: str
    severity: Severity
    resolves: bool
    title: str
    seen: str
    usual: str
    advice: str
    type: str
    place: str
    wall_ms: int
    subject: str = ""
    lease: str = ""
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one type of event alerts; `about` gives the part of the key and of the title that names what it is about."""

    severity: Severity
    title: str
    advice: str
    about: Callable[[Event, str], str]
    ends: EventType | None = None


def _named(*names: str) -> Callable[[Event, str], str]:
    def about(event: Event, _stream: str) -> str:
        return "/".join(_text(event.details.get(name), NAME_CHARACTERS_MAX) for name in names)

    return about


def _lease(event: Event, _stream: str) -> str:
    return event.lease[:NAME_CHARACTERS_MAX]


def _stream(_event: Event, stream: str) -> str:
    return stream


def _task(event: Event, stream: str) -> str:
    return f"{stream}/{_text(event.details.get('task'), NAME_CHARACTERS_MAX)}"


def _subject(event: Event, stream: str) -> str:
    if event.subject is None:
        return stream
    return f"{event.subject.issuer} {event.subject.subject}"[: 2 * NAME_CHARACTERS_MAX]


def _honeytoken(event: Event, stream: str) -> str:
    return f"{_text(event.details.get('honeytoken'), NAME_CHARACTERS_MAX)} by {_subject(event, stream)}"


_RULES: Final[Mapping[EventType, _Rule]] = {
    EventType.LEASE_FROZEN: _Rule(
        Severity.CRITICAL,
        "A provider reported usage above the hold; the lease is frozen",
        "Compare the price table with the provider's bill; the lease stays frozen until it is revoked or ends.",
        _lease,
    ),
    EventType.KEY_TAKEN_OUT: _Rule(
        Severity.CRITICAL,
        "A provider refuses a key; it serves no more",
        "Look at the key in the provider's console; store a new version, or enable it again.",
        _named("key"),
    ),
    EventType.KEY_TAKEN_BACK: _Rule(
        Severity.INFO, "A provider accepts a key again", "", _named("key"), EventType.KEY_TAKEN_OUT
    ),
    EventType.KEY_EXHAUSTED: _Rule(
        Severity.ERROR,
        "A provider says that a key's account has nothing left",
        "Add credit or raise the limit in the provider's console; until then other keys are preferred to this one.",
        _named("key"),
    ),
    EventType.KEY_REPLENISHED: _Rule(
        Severity.INFO, "A key whose account had nothing left serves again", "", _named("key"), EventType.KEY_EXHAUSTED
    ),
    EventType.KEY_NOT_REVOKED: _Rule(
        Severity.ERROR,
        "A secret engine does not revoke a credential whose lease has ended",
        "Look at the engine; it is asked again until it does. By hand: vault token revoke -accessor, of the event.",
        _named("key"),
    ),
    EventType.BUDGET_THRESHOLD: _Rule(
        Severity.WARNING,
        "A budget is nearly used up",
        "Raise the cap with leasehold budget, or expect refusals when it is reached.",
        _named("account", "metric"),
    ),
    EventType.POLICY_REJECTED: _Rule(
        Severity.ERROR,
        "A new policy was refused; the one before stays in force",
        "Correct the file; leasehold-broker policy check says what is wrong.",
        _stream,
    ),
    EventType.POLICY_LOADED: _Rule(Severity.INFO, "A policy is in force", "", _stream, EventType.POLICY_REJECTED),
    EventType.PRICES_REJECTED: _Rule(
        Severity.ERROR,
        "A new price table was refused; the one before stays in force",
        "Correct the file; leasehold-broker prices says what is wrong.",
        _stream,
    ),
    EventType.PRICES_LOADED: _Rule(Severity.INFO, "Prices are in force", "", _stream, EventType.PRICES_REJECTED),
    EventType.AUDIT_GAP_ACCEPTED: _Rule(
        Severity.CRITICAL,
        "Records of a stream are missing from the log",
        "Read deploy/runbooks/audit.md: events were lost, or the store was restored from an older copy.",
        _named("gap_stream"),
    ),
    EventType.AUDIT_TAIL_UNKNOWN: _Rule(
        Severity.WARNING,
        "How a stream's earlier life ended is not known",
        "Look for a sidecar whose state was deleted or cloned; deploy/runbooks/audit.md.",
        _named("tail_stream"),
    ),
    EventType.COLLECTOR_FAILED: _Rule(
        Severity.CRITICAL,
        "A collector gives up",
        "Look at its log. Where the log itself was altered it will not start again: deploy/runbooks/audit.md.",
        _stream,
    ),
    EventType.COLLECTOR_STARTED: _Rule(
        Severity.INFO, "A collector has started", "", _stream, EventType.COLLECTOR_FAILED
    ),
    EventType.AUDIT_SPOOL_FILLING: _Rule(
        Severity.CRITICAL,
        "A sidecar's spool of audit events fills; when it is full it refuses work",
        "See why the collector does not take its events; free its disk, or give the sidecar a larger spool.",
        _stream,
    ),
    EventType.AUDIT_SPOOL_DRAINED: _Rule(
        Severity.INFO, "A sidecar's spool has drained", "", _stream, EventType.AUDIT_SPOOL_FILLING
    ),
    EventType.SINK_FAILED: _Rule(
        Severity.ERROR,
        "A sink takes no events",
        "Look at the place it sends to; nothing is lost meanwhile, but a required sink ends up stopping the log.",
        _named("sink"),
    ),
    EventType.SINK_RECOVERED: _Rule(
        Severity.INFO, "A sink takes events again", "", _named("sink"), EventType.SINK_FAILED
    ),
    EventType.REVOCATION_LAGGING: _Rule(
        Severity.CRITICAL,
        "A revocation has not reached every sidecar",
        "leasehold revoke --watch names them; stop one that stays behind. One that is cut off stops by itself.",
        _named("epoch"),
    ),
    EventType.REVOCATION_COMPLETE: _Rule(
        Severity.INFO,
        "A revocation has reached every sidecar",
        "",
        _named("epoch"),
        EventType.REVOCATION_LAGGING,
    ),
    EventType.SIGNAL_NOT_TAKEN: _Rule(
        Severity.ERROR,
        "A receiver of security events will not take one",
        "Look at what it says; it was told nothing of that revocation.",
        _named("stream"),
    ),
    EventType.ALERT_REJECTED: _Rule(
        Severity.ERROR,
        "An endpoint for alerts will not take one",
        "Look at what it answered; that alert was given up there.",
        _named("endpoint"),
    ),
    EventType.FINDING_HONEYTOKEN: _Rule(
        Severity.CRITICAL,
        "A honeytoken was used",
        "Treat that agent and whatever it can read as compromised: see where it was laid, and what else lies there.",
        _honeytoken,
    ),
    EventType.FINDING_SPEND_RATE: _Rule(
        Severity.ERROR,
        "A subject spends far more than it usually does",
        "See its calls with leasehold audit query --subject; revoke it if nobody can say why.",
        _subject,
    ),
    EventType.FINDING_REFUSALS: _Rule(
        Severity.WARNING,
        "A subject is refused far more often than it usually is",
        "Look at the reasons: a broken agent tries the same, a hostile one tries everything.",
        _subject,
    ),
    EventType.FINDING_NEW_ROUTE: _Rule(
        Severity.WARNING,
        "A subject calls what it never called before",
        "Ask its owner; if that is not wanted, narrow its scope in the policy.",
        _subject,
    ),
    EventType.FINDING_ODD_HOUR: _Rule(
        Severity.WARNING,
        "A subject calls at an hour when it never did",
        "Ask its owner whether a job was moved; else look at what it calls.",
        _subject,
    ),
    EventType.FINDING_RESPONSE_WITHHELD: _Rule(
        Severity.CRITICAL,
        "A finding would have been answered with a revocation, and was not",
        "Decide by hand: leasehold revoke. If the rule is wrong, mend it before you raise the bound.",
        _subject,
    ),
    EventType.KEY_ROTATION_FAILED: _Rule(
        Severity.ERROR,
        "A rotation of a key has failed; one key serves",
        "See which and why with leasehold keys rotations; deploy/runbooks/rotation.md says what to do for each reason.",
        _named("key"),
    ),
    EventType.KEY_ROTATION_DONE: _Rule(
        Severity.INFO, "A key is rotated", "", _named("key"), EventType.KEY_ROTATION_FAILED
    ),
    EventType.KEY_ROTATION_AWAITS_PERSON: _Rule(
        Severity.WARNING,
        "A rotation of a key waits for a person",
        "Make the new key and hand it in with leasehold keys supply, or end the old one in the provider's console.",
        _named("key"),
    ),
    EventType.KEY_ROTATION_DELAYED: _Rule(
        Severity.WARNING,
        "A rotation of a key has to wait",
        "See why with leasehold keys rotations; it goes on by itself once the provider or the store does.",
        _named("key"),
    ),
    EventType.KEY_DISABLING_FAILED: _Rule(
        Severity.CRITICAL,
        "A key that was to be switched off may still work at its provider",
        "End it in the provider's console now, and look at what was called with it.",
        _named("key"),
    ),
    EventType.KEY_DISABLING_AWAITS_PERSON: _Rule(
        Severity.CRITICAL,
        "A key has to be switched off by hand at its provider",
        "End it in the provider's console now; it is tried until it is refused there.",
        _named("key"),
    ),
    EventType.KEY_DISABLING_DELAYED: _Rule(
        Severity.ERROR,
        "A key could not be switched off at its provider yet",
        "It is tried again; see why with leasehold keys rotations, or end it in the provider's console.",
        _named("key"),
    ),
    EventType.KEY_DISABLED_UPSTREAM: _Rule(
        Severity.INFO, "A key is switched off at its provider", "", _named("key"), EventType.KEY_DISABLING_DELAYED
    ),
    EventType.TASK_FAILED: _Rule(
        Severity.ERROR,
        "A background task fails and is tried again",
        "Look at the log of that process; its work is not done meanwhile.",
        _task,
    ),
    EventType.TASK_RECOVERED: _Rule(
        Severity.INFO, "A background task goes well again", "", _task, EventType.TASK_FAILED
    ),
}
_BY_REASON: Final[Mapping[Reason, tuple[str, _Rule]]] = {
    Reason.AUDIT_SINK_BEHIND: (
        "audit.sink_behind",
        _Rule(
            Severity.CRITICAL,
            "A required sink is too far behind; the collector takes no events",
            "Mend the sink, or make it best-effort in the collector's configuration.",
            _stream,
        ),
    ),
    Reason.PRICE_UNKNOWN: (
        "model.unknown",
        _Rule(
            Severity.WARNING,
            "A model without a price was asked for; the call was refused",
            "If it is wanted, give it a price in the price table's override.",
            _named("provider", "model"),
        ),
    ),
    Reason.AUDIT_CHAIN_BROKEN: (
        "audit.chain_broken",
        _Rule(
            Severity.CRITICAL,
            "A stream does not continue what the log has of it",
            "Keep both copies and read deploy/runbooks/audit.md: altered, forked, or a cloned sidecar.",
            _subject,
        ),
    ),
    Reason.AUDIT_EPOCH_FENCED: (
        "audit.fenced",
        _Rule(
            Severity.CRITICAL,
            "An earlier life of a sidecar tries to go on",
            "Two processes write one stream, or a copy was started: stop the one that is not wanted.",
            _subject,
        ),
    ),
}


def alert_of(event: Event, stream: str, place: str) -> Alert | None:
    """What to tell of this event of this stream at this place in the log; None for nothing."""
    rule, key = _RULES.get(event.type), event.type.value
    if rule is None:
        found = None if event.reason is None else _BY_REASON.get(event.reason)
        if found is None:
            return None
        key, rule = found
    about = without_secrets(rule.about(event, stream))
    ends = rule.ends
    return Alert(
        key=_bounded(f"{key if ends is None else ends.value}/{about}"),
        severity=rule.severity,
        resolves=ends is not None,
        title=f"{rule.title}: {about}",
        seen=_text(event.details.get("message"), TEXT_CHARACTERS_MAX),
        usual=_text(event.details.get("usual"), TEXT_CHARACTERS_MAX),
        advice=rule.advice,
        type=event.type.value,
        place=place,
        wall_ms=event.wall_ms,
        subject="" if event.subject is None else without_secrets(event.subject.subject)[: 2 * NAME_CHARACTERS_MAX],
        lease=event.lease[:NAME_CHARACTERS_MAX],
    )


def _text(found: object, characters_max: int) -> str:
    """Bounded and on one line: it may be the words of a hostile caller."""
    if isinstance(found, bool) or not isinstance(found, str | int):
        return ""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(found)[: 4 * characters_max])
    return without_secrets(shown)[:characters_max]


def _bounded(key: str) -> str:
    if len(key) <= KEY_CHARACTERS_MAX:
        return key
    return f"{key[: KEY_CHARACTERS_MAX - 33]}#{hashlib.sha256(key.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Open:
    """A trouble that was told: when, and how often it came again since. Times are those of receipt, Unix ms."""

    told_wall_ms: int
    held_back: int = 0


class Quiet:
    """What an endpoint was told lately: the same trouble is told once in a window."""

    def __init__(self, window_ms: int, known: Mapping[str, Open] | None = None) -> None:
        """Start with what was told before."""
        self._window_ms = window_ms
        self.open: dict[str, Open] = dict(known or {})

    def decide(self, alert: Alert, now_wall_ms: int) -> tuple[Alert | None, dict[str, Open | None]]:
        """What to tell now, if anything, and what to remember once it is told (None: forget that key).

        A clock that was set back lets an alert through: better twice than never.
        """
        known = self.open.get(alert.key)
        if alert.resolves:
            return (None, {}) if known is None else (alert, {alert.key: None})
        if known is not None and 0 <= now_wall_ms - known.told_wall_ms < self._window_ms:
            return None, {alert.key: replace(known, held_back=known.held_back + 1)}
        repeated = 0 if known is None else known.held_back
        return replace(alert, repeated=repeated), {alert.key: Open(now_wall_ms)}

    def remember(self, changes: Mapping[str, Open | None]) -> dict[str, Open | None]:
        """Take these in; gives them with whatever had to be forgotten for them."""
        all_changes = dict(changes)
        for key, change in changes.items():
            self.open.pop(key, None)
            if change is not None:
                self.open[key] = change
        while len(self.open) > OPEN_KEYS_MAX:
            oldest = min(self.open, key=lambda key: self.open[key].told_wall_ms)
            del self.open[oldest]
            all_changes[oldest] = None
        return all_changes
