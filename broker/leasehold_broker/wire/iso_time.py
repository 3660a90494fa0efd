"""Times as other systems read them (RFC 3339). An event may say any time at all: the nearest one is told."""

from datetime import UTC, datetime

WALL_MS_MAX = 253_402_300_799_999
"""The last millisecond that a calendar has: the end of the year 9999."""


def iso_time(wall_ms: int) -> str:
    """In UTC, to the millisecond."""
    seconds, milliseconds = divmod(min(max(wall_ms, 0), WALL_MS_MAX), 1000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
