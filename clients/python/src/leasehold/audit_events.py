"""Events, whoever wrote them: a sidecar in other hands may write anything. Owns a reading that never fails.

The log takes any JSON object of one line that is not too deep; one odd event must not end the reading of all others.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

DIGITS_MAX = 4000
"""Of a whole number; a longer one is read as its text, for Python makes no number of it."""
WALL_MS_MAX = 253_402_300_799_999
"""The last millisecond that a calendar has: the end of the year 9999."""


def read_body(body: bytes) -> dict[str, Any] | None:
    """The object that these bytes are; None for anything else."""
    try:
        found = json.loads(body, parse_int=_whole)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def time_of(event: Mapping[str, Any]) -> datetime:
    """When an event says that it was, in UTC; the nearest time that a calendar has."""
    return datetime.fromtimestamp(min(max(whole_of(event, "wall_ms"), 0), WALL_MS_MAX) / 1000, UTC)


def object_of(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A member that ought to be an object; empty when it is none."""
    found = event.get(name)
    return found if isinstance(found, dict) else {}


def whole_of(event: Mapping[str, Any], name: str) -> int:
    """A member that ought to be a whole number; 0 when it is none."""
    found = event.get(name)
    return found if type(found) is int else 0


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= DIGITS_MAX else digits
