"""How the store says no. Owns the sentences and which fault of the disk means what."""

import errno
import sqlite3

from leasehold_broker.domain.reasons import Reason, Refusal


def is_full(error: Exception) -> bool:
    """True when the disk has no room: then nothing was written, and room can be made."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code == sqlite3.SQLITE_FULL or getattr(error, "errno", 0) == errno.ENOSPC


def disk_full(error: Exception) -> Refusal:
    """No room."""
    return Refusal(
        Reason.AUDIT_SPOOL_FULL,
        "the sidecar's disk is full and nothing may happen unaudited; free space on its state directory",
        detail=str(error),
        retry_after_seconds=5.0,
    )


def disk_failed(detail: str) -> Refusal:
    """An I/O error, now or before."""
    return Refusal(Reason.STORE_UNAVAILABLE, "the sidecar's disk has failed; it must be restarted", detail=detail)


def spool_full(spooled_bytes: int, spool_bytes_max: int) -> Refusal:
    """The collector takes events too slowly, or not at all."""
    return Refusal(
        Reason.AUDIT_SPOOL_FULL,
        "the audit spool is full and nothing may happen unaudited; the collector must take events first",
        detail=f"{spooled_bytes} bytes wait, {spool_bytes_max} are allowed",
        retry_after_seconds=5.0,
    )


def behind_a_failure() -> Refusal:
    """Asked for before the caller could know that what it was built on had failed."""
    return Refusal(
        Reason.STORE_UNAVAILABLE,
        "the sidecar's disk failed on what had to be written before this; retry",
        retry_after_seconds=1.0,
    )


def overloaded() -> Refusal:
    """Too much waits for the disk."""
    return Refusal(Reason.OVERLOADED, "the sidecar's disk cannot keep up; retry later", retry_after_seconds=1.0)


def stopping() -> Refusal:
    """The store is being closed."""
    return Refusal(Reason.STORE_UNAVAILABLE, "the sidecar is stopping; retry when it is back", retry_after_seconds=2.0)
