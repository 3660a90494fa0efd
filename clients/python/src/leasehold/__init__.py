"""Client of the leasehold credential broker: capped leases on paid APIs instead of keys."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leasehold._messages import LeaseInfo, Scope, Usage
    from leasehold._settings import TlsFiles
    from leasehold.client import LeaseholdClient
    from leasehold.errors import (
        BudgetExhausted,
        Conflict,
        IdentityRejected,
        InvalidRequest,
        LeaseEnded,
        LeaseholdError,
        NotFound,
        PermissionDenied,
        PreconditionFailed,
        QuotaExceeded,
        Unavailable,
        Violation,
    )
    from leasehold.lease import LeaseHandle, LeaseToken

__all__ = [
    "BudgetExhausted",
    "Conflict",
    "IdentityRejected",
    "InvalidRequest",
    "LeaseEnded",
    "LeaseHandle",
    "LeaseInfo",
    "LeaseToken",
    "LeaseholdClient",
    "LeaseholdError",
    "NotFound",
    "PermissionDenied",
    "PreconditionFailed",
    "QuotaExceeded",
    "Scope",
    "TlsFiles",
    "Unavailable",
    "Usage",
    "Violation",
]

_HOMES = {
    "LeaseInfo": "_messages",
    "Scope": "_messages",
    "Usage": "_messages",
    "TlsFiles": "_settings",
    "LeaseholdClient": "client",
    "LeaseHandle": "lease",
    "LeaseToken": "lease",
}
"""Where each public name lives, when not in `errors`. Imported when first asked for: the broker imports `leasehold.v1`
from this package, and must not pay for the client in memory and start-up time."""


def __getattr__(name: str) -> object:
    """A public name, imported now; or the version, which is metadata and slow to read."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - see above

        return version("leasehold")
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(f"leasehold.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value
