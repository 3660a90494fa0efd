"""When a key is due by schedule: by age or by cron, spread by jitter, held back by blackouts. Pure: cron is told."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo

from leasehold_broker.domain.rotation import Rotation, RotationState

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
AFTER_FAILURE_MS = 3600 * 1000
MISSED_MS = 3600 * 1000
"""A time of cron that nobody was there for is made up for this long after it; later, the next one counts."""
"""After a rotation that failed, the schedule asks again no sooner."""
DAY_MS = 86_400_000

NextTime = Callable[[str, datetime], datetime]
"""The first time after another one that a cron expression names."""


@dataclass(frozen=True, slots=True)
class Blackout:
    """On these days, from `start` to `end`; the same time twice: all day; past midnight: part of its first day."""

    days: tuple[str, ...]
    start: time
    end: time

    def holds(self, local: datetime) -> bool:
        """True when this moment lies within."""
        today = DAYS[local.weekday()] in self.days
        before = DAYS[(local - timedelta(days=1)).weekday()] in self.days
        now = local.time()
        if self.start < self.end:
            return today and self.start <= now < self.end
        if self.start == self.end:
            return today
        return (today and now >= self.start) or (before and now < self.end)


@dataclass(frozen=True, slots=True)
class RotationSchedule:
    """When a key is rotated without anybody's asking.

    Args:
        every_days: by age: so long after the last rotation, or after the key was stored; 0: not by age.
        cron: five fields; "": not by cron.
        zone: of cron and blackouts.
        jitter_seconds: at most so much later, the same for one key and one due time.
        blackouts: in none of them.
    """

    every_days: float = 0.0
    cron: str = ""
    zone: tzinfo = UTC
    jitter_seconds: int = 0
    blackouts: tuple[Blackout, ...] = field(default=())

    @property
    def idle(self) -> bool:
        """Nothing is ever due."""
        return not self.every_days and not self.cron

    @property
    def never_open(self) -> bool:
        """Its blackouts leave no minute of any week."""
        week = datetime(2026, 1, 5)  # noqa: DTZ001 - local time, of any week
        minutes = (week + timedelta(minutes=minute) for minute in range(7 * 24 * 60))
        return bool(self.blackouts) and all(any(each.holds(at) for each in self.blackouts) for at in minutes)

    def due_wall_ms(self, key: str, since_wall_ms: int, next_time: NextTime, there_wall_ms: int = 0) -> int | None:
        """When it is due.

        Args:
            key: its name.
            since_wall_ms: when it was stored, or last rotated by whomever.
            next_time: reads cron.
            there_wall_ms: since when somebody looks: a time of cron long before that is past.
        """
        if self.every_days:
            due = since_wall_ms + round(self.every_days * DAY_MS)
        elif self.cron:
            missed = there_wall_ms - MISSED_MS - self.jitter_seconds * 1000
            local = datetime.fromtimestamp(max(since_wall_ms, missed) / 1000, self.zone)
            due = round(next_time(self.cron, local).timestamp() * 1000)
        else:
            return None
        return due + _jitter_ms(f"{key}/{due}", self.jitter_seconds)

    def closed(self, wall_ms: int) -> bool:
        """True within a blackout."""
        local = datetime.fromtimestamp(wall_ms / 1000, self.zone)
        return any(blackout.holds(local) for blackout in self.blackouts)


def counts_from(stored_wall_ms: int, last: Rotation | None, now_wall_ms: int) -> tuple[int, int]:
    """Since when a key's age counts, and when the schedule may ask at the earliest.

    A time that is to come was written by a clock that was wrong: the age is not known then, and the key is due.
    """
    since, not_before = _counts_from(stored_wall_ms, last)
    until = now_wall_ms + DAY_MS
    return since if since <= until else 0, not_before if not_before <= until else 0


def _counts_from(stored_wall_ms: int, last: Rotation | None) -> tuple[int, int]:
    if last is None:
        return stored_wall_ms, 0
    if last.state is RotationState.FAILED:
        # The key may be as old as before: it stays due, but not every second.
        return min(stored_wall_ms, last.create_wall_ms), last.state_wall_ms + AFTER_FAILURE_MS
    return last.create_wall_ms, 0


def _jitter_ms(what: str, seconds: int) -> int:
    digest = hashlib.sha256(what.encode()).digest()
    return int.from_bytes(digest[:6], "big") * seconds * 1000 // 2**48
