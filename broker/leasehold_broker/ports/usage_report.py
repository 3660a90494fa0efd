"""How a vendor's module asks for its provider's own account of what was used, and is answered."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from leasehold_broker.domain.reconciliation import Counted


@dataclass(frozen=True, slots=True)
class ReportAsk:
    """One page to be asked for: path, query, and the header that carries the admin key."""

    path: str
    query: tuple[tuple[str, str], ...]
    key_header: str
    key_prefix: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


Reporting = Generator[ReportAsk, bytes, dict[tuple[str, str], Counted]]
"""Yields what to ask, is sent each answer's body, and returns the statement, by the provider's own ids of keys."""


class UsageReportError(Exception):
    """A report could not be had: unreachable, refused, or of a shape that we do not know. Never holds a secret."""
