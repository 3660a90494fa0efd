"""Spans of time over which budgets are counted: calendar windows in a time zone, and rolling windows. Pure arithmetic.

A calendar window is a span from one local midnight (or first of the month ...) to the next, so a day of 23 or 25 hours
is one window. Hours and minutes are counted in real time from the local midnight; where a zone shifts by part of an
hour, the last hour of that day is the shorter one.

A rolling window is counted in buckets: all that was reserved in the running bucket and in as many before it as cover
the whole length. So no span of that length, wherever it begins, holds more than the cap; the price is that an amount
is given back up to one bucket late.

Refuses to know what is counted, and to read a clock or a table of time zones: it is told both.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum

ROLLING_SECONDS_MIN = 60
ROLLING_SECONDS_MAX = 366 * 86_400
_BUCKETS_WANTED = 60
"""A rolling window has at most so many whole buckets: a minute is counted by the second, a day by 24 minutes."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_DAY_MS = 86_400_000


class Period(StrEnum):
    """Length of a calendar window; `TOTAL` has no end."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"
    TOTAL = "total"


_WITHIN_A_DAY = {Period.MINUTE: 60_000, Period.HOUR: 3_600_000}
_MONTHS = {Period.MONTH: 1, Period.QUARTER: 3, Period.YEAR: 12}


@dataclass(frozen=True, slots=True)
class Window:
    """Unix milliseconds from `start_ms` up to, not including, `end_ms`; both 0 for the window without an end."""

    start_ms: int
    end_ms: int


ENDLESS = Window(0, 0)


def window_at(period: Period, zone: tzinfo, wall_ms: int) -> Window:
    """The calendar window that `wall_ms` falls into: exactly one, whatever the zone does to its clocks."""
    if period is Period.TOTAL:
        return ENDLESS
    if zone is UTC and (length := _WITHIN_A_DAY.get(period, _DAY_MS if period is Period.DAY else 0)):
        start = wall_ms - wall_ms % length
        return Window(start, start + length)
    within = _WITHIN_A_DAY.get(period)
    if within is not None:
        day = _window_of_dates(Period.DAY, zone, wall_ms)
        start = wall_ms - (wall_ms - day.start_ms) % within
        return Window(start, min(start + within, day.end_ms))
    return _window_of_dates(period, zone, wall_ms)


def _window_of_dates(period: Period, zone: tzinfo, wall_ms: int) -> Window:
    # The local date is a first guess only: near a change of the clocks a date may come twice, or not at all.
    first = _first_day(period, (_EPOCH + wall_ms * _MS).astimezone(zone).date())
    while _midnight_ms(first, zone) > wall_ms:
        first = _first_day(period, first - timedelta(days=1))
    while (end := _midnight_ms(following := _following(period, first), zone)) <= wall_ms:
        first = following
    return Window(_midnight_ms(first, zone), end)


def _first_day(period: Period, day: date) -> date:
    if period is Period.DAY:
        return day
    if period is Period.WEEK:
        return day - timedelta(days=day.weekday())
    months = _MONTHS[period]
    return date(day.year, (day.month - 1) // months * months + 1, 1)


def _following(period: Period, first: date) -> date:
    if period is Period.DAY:
        return first + timedelta(days=1)
    if period is Period.WEEK:
        return first + timedelta(days=7)
    years, month = divmod(first.month - 1 + _MONTHS[period], 12)
    return date(first.year + years, month + 1, 1)


def _midnight_ms(day: date, zone: tzinfo) -> int:
    return (datetime(day.year, day.month, day.day, tzinfo=zone) - _EPOCH) // _MS


@dataclass(frozen=True, slots=True)
class Rolling:
    """A window that always ends now, of `seconds` length."""

    seconds: int

    @property
    def bucket_ms(self) -> int:
        """Length of one bucket, in whole seconds."""
        return -(-self.seconds // _BUCKETS_WANTED) * 1000

    @property
    def counted_ms(self) -> int:
        """For how long after the start of its bucket an amount counts: the length, and the running bucket."""
        width = self.bucket_ms
        return (-(-self.seconds * 1000 // width) + 1) * width

    def bucket_start_ms(self, steady_ms: int) -> int:
        """Start of the bucket that this moment falls into."""
        return steady_ms - steady_ms % self.bucket_ms

    def live_starts_ms(self, steady_ms: int) -> range:
        """Starts of all buckets that count at this moment, the oldest first."""
        newest = self.bucket_start_ms(steady_ms)
        return range(newest - self.counted_ms + self.bucket_ms, newest + 1, self.bucket_ms)

    def __str__(self) -> str:
        """As in names of budgets: "rolling-86400s"."""
        return f"rolling-{self.seconds}s"
