"""What a human is told of the audit log. Owns what an alert is, and how often it is told; `alert_rules` has the words.

An alert says what was seen, what is usual where known, and what to do. Its key names the trouble, not the event:
two alerts with one key within the window are one.

Several may report one trouble, a fleet's sidecars of a key that their provider refuses. It is over once each of them
has taken back what it said, or is gone: nobody ends what another reports. What a sidecar says is not trusted either: of
one kind of alarm each gets so many told in a window, and then one that says that there are more.
"""

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from leasehold_broker.domain.alert_rules import BY_REASON, NAME_CHARACTERS_MAX, RULES, Severity, text
from leasehold_broker.domain.centre_events import SAID_BY_CENTRE
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.key_shapes import without_secrets
from leasehold_broker.domain.values import value

TEXT_CHARACTERS_MAX = 600
KEY_CHARACTERS_MAX = 255
OPEN_KEYS_MAX = 10_000
"""Keys remembered for each endpoint; the ones that were silent longest are forgotten first."""
REPORTERS_MAX = 1000
"""Remembered of one trouble; where there were more it is never over by itself."""
ALARMS_OF_A_KIND_MAX = 20
"""Told of one reporter and one kind in a window."""
_MORE = "*"
_TAKEN_BACK = frozenset(rule.ends.value for rule in RULES.values() if rule.ends is not None)


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
        reporter: the stream that says so, of what a sidecar says; "" of what the centre says, whichever replica.
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
    reporter: str = ""


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
        reporter="" if event.type in SAID_BY_CENTRE else stream,
    )


def over_with_its_reporter(key: str, reporter: str, event: Event, place: str) -> Alert:
    """What ends a trouble, as far as this reporter is concerned, because it was banned or evicted with this event."""
    return Alert(
        key=key,
        severity=Severity.INFO,
        resolves=True,
        title=f"Nobody is left who reports this: {reporter} is gone",
        seen=text(event.details.get("note"), TEXT_CHARACTERS_MAX),
        usual="",
        advice="",
        type=event.type.value,
        place=place,
        wall_ms=event.wall_ms,
        reporter=reporter,
    )


def _too_many(alert: Alert) -> Alert:
    """Instead of one more alarm of the same kind by the same sidecar."""
    kind = alert.key.partition("/")[0]
    return replace(
        alert,
        key=_bounded(f"alarms.many/{alert.reporter}/{kind}"),
        severity=max(alert.severity, Severity.ERROR, key=lambda one: one.rank),
        title=f"A sidecar raises more alarms than are told: {alert.reporter}, {kind}",
        usual=f"at most {ALARMS_OF_A_KIND_MAX} of one kind in a window",
        advice="See leasehold audit query --stream; if nobody can say why, take it for one in other hands.",
    )


def _bounded(key: str) -> str:
    if len(key) <= KEY_CHARACTERS_MAX:
        return key
    return f"{key[: KEY_CHARACTERS_MAX - 33]}#{hashlib.sha256(key.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Open:
    """A trouble that was told.

    Args:
        told_wall_ms: when; the time of receipt.
        held_back: how often it came again since.
        reporters: who says so still, each as a short digest; none where it was remembered before there were any.
    """

    told_wall_ms: int
    held_back: int = 0
    reporters: tuple[str, ...] = ()


class Quiet:
    """What an endpoint was told lately: the same trouble is told once in a window."""

    def __init__(self, window_ms: int, known: Mapping[str, Open] | None = None) -> None:
        """Start with what was told before."""
        self._window_ms = window_ms
        self.open: dict[str, Open] = dict(known or {})
        self._told: dict[tuple[str, str], deque[int]] = {}

    def reported_by(self, reporter: str) -> Sequence[str]:
        """Keys of the open troubles that it reports and that it could take back: what it has seen happen stays seen."""
        short = _short(reporter)
        return [
            key for key, known in self.open.items() if short in known.reporters and key.partition("/")[0] in _TAKEN_BACK
        ]

    def decide(self, alert: Alert, now_wall_ms: int) -> tuple[Alert | None, dict[str, Open | None]]:
        """What to tell now, if anything, and what to remember once it is told (None: forget that key).

        A clock that was set back lets an alert through: better twice than never.
        """
        known = self.open.get(alert.key)
        if alert.resolves:
            return self._taken_back(alert, known)
        if self._fresh(known, now_wall_ms) and alert.reporter and not self._may_tell(alert, now_wall_ms):
            alert = _too_many(alert)
            known = self.open.get(alert.key)
        reporters = _with(() if known is None else known.reporters, _short(alert.reporter))
        if known is not None and not self._fresh(known, now_wall_ms):
            return None, {alert.key: replace(known, held_back=known.held_back + 1, reporters=reporters)}
        repeated = 0 if known is None else known.held_back
        return replace(alert, repeated=repeated), {alert.key: Open(now_wall_ms, reporters=reporters)}

    def _taken_back(self, alert: Alert, known: Open | None) -> tuple[Alert | None, dict[str, Open | None]]:
        if known is None:
            return None, {}
        short = _short(alert.reporter)
        if known.reporters and short not in known.reporters:
            return None, {}
        left = tuple(one for one in known.reporters if one != short)
        return (None, {alert.key: replace(known, reporters=left)}) if left else (alert, {alert.key: None})

    def _fresh(self, known: Open | None, now_wall_ms: int) -> bool:
        """True when it is to be told now, for all that was told before."""
        return known is None or not 0 <= now_wall_ms - known.told_wall_ms < self._window_ms

    def _may_tell(self, alert: Alert, now_wall_ms: int) -> bool:
        """Count one more of this kind by this reporter; False when it had its share. A restart counts anew."""
        told = self._told.setdefault((alert.reporter, alert.key.partition("/")[0]), deque())
        while told and not 0 <= now_wall_ms - told[0] < self._window_ms:
            told.popleft()
        if len(told) >= ALARMS_OF_A_KIND_MAX:
            return False
        told.append(now_wall_ms)
        return True

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


def _short(reporter: str) -> str:
    return hashlib.sha256(reporter.encode()).hexdigest()[:12]


def _with(reporters: tuple[str, ...], one: str) -> tuple[str, ...]:
    if one in reporters:
        return reporters
    return (*reporters, one if len(reporters) < REPORTERS_MAX else _MORE) if _MORE not in reporters else reporters
