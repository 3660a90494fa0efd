"""The one table of who may call what, and how. Owns the classification; refuses to serve a method that is not in it.

Served methods and this table are held together at start-up: a forgotten method is a broker that does not start.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Access(StrEnum):
    """Who may call. What each must show is decided by the process that serves (its `Authenticate` callables)."""

    WORKLOAD = "workload"
    OPERATOR = "operator"
    SIDECAR = "sidecar"


class Audit(StrEnum):
    """Which event this method leaves. Refusals are always events.

    EFFECT: the flow commits the event together with the change. READ: reading is itself an event, recorded before the
    handler runs. REFUSALS: nothing but refusals.
    """

    EFFECT = "effect"
    READ = "read"
    REFUSALS = "refusals"


@dataclass(frozen=True, slots=True)
class Method:
    """How one method is treated.

    Args:
        access: who may call.
        mutating: it changes something; a unary one must then state a deadline, so that its caller and we agree on
            when to give up.
        audit: which event it leaves.
        seconds_max: unary: the longest we work on it, whatever the deadline. Streams of answers to a reader: their
            age, with 10 % jitter, after which they end with OK and are opened again. Zero: until one side ends it.
    """

    access: Access
    mutating: bool
    audit: Audit
    seconds_max: float


UNARY_SECONDS_MAX = 30.0
WATCH_SECONDS_MAX = 900.0

_CHANGE = Method(Access.WORKLOAD, mutating=True, audit=Audit.EFFECT, seconds_max=UNARY_SECONDS_MAX)
_LOOK = Method(Access.WORKLOAD, mutating=False, audit=Audit.REFUSALS, seconds_max=UNARY_SECONDS_MAX)
_WATCH = Method(Access.WORKLOAD, mutating=False, audit=Audit.REFUSALS, seconds_max=WATCH_SECONDS_MAX)
_REVOKE = Method(Access.OPERATOR, mutating=True, audit=Audit.EFFECT, seconds_max=UNARY_SECONDS_MAX)
_OPERATOR_LOOK = Method(Access.OPERATOR, mutating=False, audit=Audit.REFUSALS, seconds_max=UNARY_SECONDS_MAX)
_OPERATOR_WATCH = Method(Access.OPERATOR, mutating=False, audit=Audit.REFUSALS, seconds_max=WATCH_SECONDS_MAX)
_AUDIT_LOOK = Method(Access.OPERATOR, mutating=False, audit=Audit.READ, seconds_max=UNARY_SECONDS_MAX)
_AUDIT_WATCH = Method(Access.OPERATOR, mutating=False, audit=Audit.READ, seconds_max=WATCH_SECONDS_MAX)
_SYNC = Method(Access.SIDECAR, mutating=True, audit=Audit.EFFECT, seconds_max=0.0)

METHODS: Mapping[str, Method] = {
    "leasehold.v1.LeaseService/AcquireLease": _CHANGE,
    "leasehold.v1.LeaseService/RenewLease": _CHANGE,
    "leasehold.v1.LeaseService/ReleaseLease": _CHANGE,
    "leasehold.v1.LeaseService/DelegateLease": _CHANGE,
    "leasehold.v1.LeaseService/GetLease": _LOOK,
    "leasehold.v1.LeaseService/ListLeases": _LOOK,
    "leasehold.v1.LeaseService/WatchLease": _WATCH,
    "leasehold.v1.RevocationService/RevokeLeases": _REVOKE,
    "leasehold.v1.RevocationService/GetRevocation": _OPERATOR_LOOK,
    "leasehold.v1.RevocationService/ListRevocations": _OPERATOR_LOOK,
    "leasehold.v1.RevocationService/WatchRevocation": _OPERATOR_WATCH,
    "leasehold.v1.AuditService/ListEvents": _AUDIT_LOOK,
    "leasehold.v1.AuditService/WatchEvents": _AUDIT_WATCH,
    "leasehold.v1.AuditService/ListStreams": _OPERATOR_LOOK,
    "leasehold.v1.AuditIngestService/AppendEvents": _SYNC,
    "leasehold.v1.SidecarService/SyncState": _SYNC,
}


class AccessTableError(Exception):
    """What is served and what the table says differ. The process must not start."""

    def __init__(self, service: str, method: str, problem: str) -> None:
        """Say which method has which problem."""
        super().__init__(f"{service}/{method}: {problem}")


def methods_of(service: str, defined: Iterable[str], handled: Iterable[str]) -> dict[str, Method]:
    """The rows of one service, by method name, once proto, handlers and table agree.

    Args:
        service: full name, "leasehold.v1.LeaseService".
        defined: method names in the proto.
        handled: method names that have a handler.

    Raises:
        AccessTableError: a method is missing in one of the three; says which and where.
    """
    prefix = f"{service}/"
    rows = {path.removeprefix(prefix): method for path, method in METHODS.items() if path.startswith(prefix)}
    places = {"the proto": set(defined), "the handlers": set(handled), "the access table": set(rows)}
    known = set().union(*places.values())
    for place, names in places.items():
        missing = sorted(known - names)
        if missing:
            raise AccessTableError(service, missing[0], f"missing in {place}")
    return rows
