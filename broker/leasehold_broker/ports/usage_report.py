"""The port to a provider's own account of what was used and what it cost."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

from leasehold_broker.domain.reconciliation import Counted
from leasehold_broker.domain.secret import Secret


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


class UsageReports(Protocol):
    """Carries the questions of a vendor's module."""

    def carry(self, reporting: Reporting, admin_key: Secret) -> dict[tuple[str, str], Counted]:
        """Ask until the module has what it wants.

        Raises:
            UsageReportError: the provider cannot be reached or refuses.
        """
        ...


class UsageVendor(Protocol):
    """A vendor's module, pure."""

    def __call__(self, first: date, days: int) -> Reporting:
        """The usage of so many UTC days from `first` on."""
        ...
