"""Small readings of the vendors' usage reports. Owns what makes a report unusable; refuses to repair it."""

from typing import Final

from leasehold_broker.ports.provider import Json

Object = dict[str, Json]

COUNT_MAX: Final = 10**9
"""A larger count is a mistake of the sender."""


class UnusableError(Exception):
    """The report cannot be used."""


def read_count(report: Object, name: str, *, required: bool = False) -> int:
    """A count.

    Raises:
        UnusableError: it is none.
    """
    value = report.get(name)
    if value is None and not required:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise UnusableError(name)
    return value


def read_details(report: Object, name: str) -> Object:
    """An object inside; empty when absent.

    Raises:
        UnusableError: it is none.
    """
    value = report.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnusableError(name)
    return value


def read_entries(report: Object, name: str) -> list[Object]:
    """A list of objects; empty when absent.

    Raises:
        UnusableError: it is none.
    """
    value = report.get(name)
    entries = [] if value is None else value
    if not isinstance(entries, list):
        raise UnusableError(name)
    objects = [entry for entry in entries if isinstance(entry, dict)]
    if len(objects) < len(entries):
        raise UnusableError(name)
    return objects


def read_rest(total: int, *parts: int) -> int:
    """What is left of a total.

    Raises:
        UnusableError: it is none.
    """
    rest = total - sum(parts)
    if rest < 0:
        raise UnusableError("parts are larger than their total")
    return rest


def read_word(report: Object, name: str, priced: frozenset[str]) -> str:
    """A word that decides the price; one that the table does not price makes the report unusable."""
    value = report.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or value not in priced:
        raise UnusableError(name)
    return value
