"""Cron expressions, by the library cronsim (Debian's rules for days and for changes of daylight saving)."""

from datetime import datetime

from cronsim import CronSim, CronSimError

FIELDS = 5
"""The library takes a sixth, of seconds, before them: every field would mean something else than was written."""


def next_time(expression: str, after: datetime) -> datetime:
    """The first time after `after` that the expression names, in its zone."""
    return next(CronSim(expression, after))


def wrong_cron(expression: str) -> str:
    """What is wrong with an expression; "" when it names a time that comes."""
    if (count := len(expression.split())) != FIELDS:
        return f"it has {count} fields, not {FIELDS}: minute, hour, day, month, day of the week"
    try:
        next(CronSim(expression, datetime(2026, 1, 1)))  # noqa: DTZ001 - any will do
    except CronSimError as error:
        return str(error)
    except StopIteration:
        return "it names no time that ever comes"
    return ""
