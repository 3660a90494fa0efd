"""What a human is told of the audit log. Owns what an alert is, and how often it is told; `alert_rules` has the words.

An alert says what was seen, what is usual where known, and what to do. Its key names the trouble, not the event:
two alerts with one key within the window are one. An event that ends a trouble resolves its key.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from leasehold_broker.domain.alert_rules import BY_REASON, NAME_CHARACTERS_MAX, RULES, Severity, text
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.key_shapes import without_secrets
from leasehold_broker.domain.values import value

TEXT_CHARACTERS_MAX = 600
KEY_CHARACTERS_MAX = 255
OPEN_KEYS_MAX = 10_000
"""Keys remembered for each endpoint; the ones that were silent longest are forgotten first."""


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


def alert_of(event: Event, stream: str, place: str) -> Alert | None:
    """What to tell of this event of this stream at this place in the log; None for nothing."""
    rule, key = RULES.get(event.type), event.type.value
    if rule is None:
        found = None if event.reason is None else BY_REASON.get(event.reason)
        if found is None:
            return None
        key, rule = found
    if not rule.when(event):
        return None
    about = without_secrets(rule.about(event, stream))
    ends = rule.ends
    return Alert(
        key=_bounded(f"{key if ends is None else ends.value}/{about}"),
        severity=rule.severity,
        resolves=ends is not None,
        title=f"{rule.title}: {about}",
        seen=text(event.details.get("message", event.details.get("why")), TEXT_CHARACTERS_MAX),
        usual=text(event.details.get("usual"), TEXT_CHARACTERS_MAX),
        advice=rule.advice,
        type=event.type.value,
        place=place,
        wall_ms=event.wall_ms,
        subject="" if event.subject is None else without_secrets(event.subject.subject)[: 2 * NAME_CHARACTERS_MAX],
        lease=event.lease[:NAME_CHARACTERS_MAX],
    )


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
