"""Asks the vendors' admin APIs, from a command that ends: plain HTTPS, no redirects, bounded, the key in one header."""

import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from typing import Any

from leasehold_broker.domain.reconciliation import Counted
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.usage_report import ReportAsk, Reporting, UsageReportError

ANSWER_BYTES_MAX = 16 * 1024 * 1024
ANSWER_SECONDS_MAX = 60.0
_LOCAL = {"127.0.0.1", "localhost", "::1"}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An admin key goes to the host that it was meant for, and to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow nothing."""


class HttpUsageReports:
    """Carries the questions of a vendor's module to its origin."""

    def __init__(self, origin: str) -> None:
        """Ask this origin.

        Raises:
            ValueError: not HTTPS (plain HTTP is for this machine only).
        """
        parts = urllib.parse.urlsplit(origin)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
            message = f"{origin} is not https; an admin key is not sent in the clear"
            raise ValueError(message)
        self._origin = origin.rstrip("/")
        self._opener = urllib.request.build_opener(_NoRedirect)

    def carry(self, reporting: Reporting, admin_key: Secret) -> dict[tuple[str, str], Counted]:
        """Ask until the module has what it wants.

        Raises:
            UsageReportError: the provider cannot be reached or refuses.
        """
        try:
            ask = next(reporting)
            while True:
                ask = reporting.send(self._answer(ask, admin_key))
        except StopIteration as done:
            found: dict[tuple[str, str], Counted] = done.value
            return found
        finally:
            reporting.close()

    def _answer(self, ask: ReportAsk, admin_key: Secret) -> bytes:
        url = f"{self._origin}{ask.path}?{urllib.parse.urlencode(ask.query)}"
        request = urllib.request.Request(url, headers={**ask.headers, "accept": "application/json"})  # noqa: S310 - checked
        request.add_unredirected_header(ask.key_header, ask.key_prefix + admin_key.reveal().decode("ascii"))
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS_MAX) as answer:
                body: bytes = answer.read(ANSWER_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            error.close()
            message = f"{self._origin}{ask.path} answered {error.code}; check the admin key and its rights"
            raise UsageReportError(message) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            message = f"{self._origin} cannot be reached: {type(reason).__name__}"
            raise UsageReportError(message) from None
        if len(body) > ANSWER_BYTES_MAX:
            message = f"{self._origin}{ask.path} answered with more than {ANSWER_BYTES_MAX} bytes"
            raise UsageReportError(message)
        return body
