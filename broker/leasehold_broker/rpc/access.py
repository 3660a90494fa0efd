"""The one table of what is served to whom, and how. Owns the classification; refuses to serve what is not in it.

Served methods, their messages in the proto, and this table are held together at start-up: a forgotten method, or one
that does not do what its row says, is a broker that does not start.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor


class Plane(StrEnum):
    """What a method is part of. A server that serves AGENTS serves nothing else, but for HEALTH.

    So what governs agents is never on a socket that they can reach.
    """

    AGENTS = "agents"
    OPERATORS = "operators"
    FLEET = "fleet"
    HEALTH = "health"


class Access(StrEnum):
    """Who may call. What each must show is decided by the process that serves (its `Authenticate` callables).

    A ROTATOR is an operator, or a pipeline with a token of its own.
    ANYONE is asked for nothing, and exists in the plane HEALTH only.
    """

    WORKLOAD = "workload"
    OPERATOR = "operator"
    SIDECAR = "sidecar"
    ROTATOR = "rotator"
    ANYONE = "anyone"


class Audit(StrEnum):
    """Which event this method leaves. Refusals are always events, but for HEALTH, which refuses nobody.

    EFFECT: the flow commits the event together with the change. READ: reading is itself an event, recorded before the
    handler runs. REFUSALS: nothing but refusals. NOTHING: no event.
    """

    EFFECT = "effect"
    READ = "read"
    REFUSALS = "refusals"
    NOTHING = "nothing"


class Idempotency(StrEnum):
    """What calling again does.

    READS: nothing; the method changes nothing. REQUEST_ID: the same `request_id` gives the first answer again.
    REPEATABLE: what has happened does not happen again: it has an end that is reached once, or numbers.
    """

    READS = "reads"
    REQUEST_ID = "request_id"
    REPEATABLE = "repeatable"


class Disclosure(StrEnum):
    """The most sensitive thing that an answer may hold.

    STATE: names and numbers that whoever may call may know. LEASE_TOKEN: a new lease token. AUDIT_RECORDS: who did
    what. Keys of providers are in no answer of any method.
    """

    STATE = "state"
    LEASE_TOKEN = "lease_token"  # noqa: S105 - the name of a class
    AUDIT_RECORDS = "audit_records"


class Deadline(StrEnum):
    """What ends a call that nobody ends.

    REQUIRED: unary; the caller must state a deadline, so that both sides agree on when to give up. AGE: a stream; its
    own age, or the end of the identity that opened it, whatever the caller states. FREE: a probe, which is answered at
    once, and whose watch ends with its connection.
    """

    REQUIRED = "required"
    AGE = "age"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class Method:
    """How one method is treated.

    Args:
        plane: what it is part of.
        access: who may call.
        audit: which event it leaves.
        idempotency: what calling again does.
        disclosure: the most sensitive thing in an answer.
        seconds_max: unary: the longest we work on it, whatever the deadline. Streams of answers to a reader: their
            age, with 10 % jitter, after which they end with OK and are opened again. Zero: until one side ends it.
        deadline: what ends it when nobody does.
        streams_max: of this method, open at a time by one identity; zero for unary ones and probes.
    """

    plane: Plane
    access: Access
    audit: Audit
    idempotency: Idempotency
    disclosure: Disclosure
    seconds_max: float
    deadline: Deadline = Deadline.REQUIRED
    streams_max: int = 0

    @property
    def mutating(self) -> bool:
        """It changes something."""
        return self.idempotency is not Idempotency.READS


UNARY_SECONDS_MAX = 30.0
WATCH_SECONDS_MAX = 900.0


STREAMS_OF_ONE_MAX = 32
"""Watches of one agent or operator. What one peer may hold open is bounded besides."""
SESSIONS_OF_ONE_MAX = 16
"""Of one sidecar: it needs one of each kind; those of a network that swallowed their end linger for 80 s."""


def _agents(audit: Audit, idempotency: Idempotency, disclosure: Disclosure = Disclosure.STATE) -> Method:
    return Method(Plane.AGENTS, Access.WORKLOAD, audit, idempotency, disclosure, UNARY_SECONDS_MAX)


def _operators(
    audit: Audit, idempotency: Idempotency = Idempotency.READS, disclosure: Disclosure = Disclosure.STATE
) -> Method:
    return Method(Plane.OPERATORS, Access.OPERATOR, audit, idempotency, disclosure, UNARY_SECONDS_MAX)


def _watched(row: Method) -> Method:
    """The same, answered with a stream."""
    return replace(row, seconds_max=WATCH_SECONDS_MAX, deadline=Deadline.AGE, streams_max=STREAMS_OF_ONE_MAX)


_ISSUE = _agents(Audit.EFFECT, Idempotency.REQUEST_ID, Disclosure.LEASE_TOKEN)
_LOOK = _agents(Audit.REFUSALS, Idempotency.READS)
_OPERATOR_LOOK = _operators(Audit.REFUSALS)
_OPERATOR_READ = _operators(Audit.READ, disclosure=Disclosure.AUDIT_RECORDS)
_SYNC = Method(
    *(Plane.FLEET, Access.SIDECAR, Audit.EFFECT, Idempotency.REPEATABLE, Disclosure.STATE, 0.0),
    *(Deadline.AGE, SESSIONS_OF_ONE_MAX),
)
_ROTATION_LOOK = Method(
    Plane.OPERATORS, Access.ROTATOR, Audit.REFUSALS, Idempotency.READS, Disclosure.STATE, UNARY_SECONDS_MAX
)
_PROBE = Method(Plane.HEALTH, Access.ANYONE, Audit.NOTHING, Idempotency.READS, Disclosure.STATE, 0.0, Deadline.FREE)

METHODS: Mapping[str, Method] = {
    "leasehold.v1.LeaseService/AcquireLease": _ISSUE,
    "leasehold.v1.LeaseService/RenewLease": _agents(Audit.EFFECT, Idempotency.REQUEST_ID),
    "leasehold.v1.LeaseService/ReleaseLease": _agents(Audit.EFFECT, Idempotency.REPEATABLE),
    "leasehold.v1.LeaseService/DelegateLease": _ISSUE,
    "leasehold.v1.LeaseService/GetLease": _LOOK,
    "leasehold.v1.LeaseService/ListLeases": _LOOK,
    "leasehold.v1.LeaseService/WatchLease": _watched(_LOOK),
    "leasehold.v1.RevocationService/RevokeLeases": _operators(Audit.EFFECT, Idempotency.REQUEST_ID),
    "leasehold.v1.RevocationService/LiftRevocation": _operators(Audit.EFFECT, Idempotency.REQUEST_ID),
    "leasehold.v1.RevocationService/GetRevocation": _OPERATOR_LOOK,
    "leasehold.v1.RevocationService/ListRevocations": _OPERATOR_LOOK,
    "leasehold.v1.RevocationService/WatchRevocation": _watched(_OPERATOR_LOOK),
    "leasehold.v1.BudgetService/ListBudgets": _OPERATOR_LOOK,
    "leasehold.v1.BudgetService/ChangeBudget": _operators(Audit.EFFECT, Idempotency.REQUEST_ID),
    "leasehold.v1.AuditService/ListEvents": _OPERATOR_READ,
    "leasehold.v1.AuditService/WatchEvents": _watched(_OPERATOR_READ),
    "leasehold.v1.AuditService/ListStreams": _OPERATOR_LOOK,
    "leasehold.v1.AuditService/GetCheckpoint": _OPERATOR_LOOK,
    "leasehold.v1.AuditService/GetInclusionProof": _OPERATOR_READ,
    "leasehold.v1.AuditService/GetConsistencyProof": _OPERATOR_LOOK,
    "leasehold.v1.KeyService/RotateKey": replace(
        _ROTATION_LOOK, audit=Audit.EFFECT, idempotency=Idempotency.REQUEST_ID
    ),
    "leasehold.v1.KeyService/SupplyKey": _operators(Audit.EFFECT, Idempotency.REQUEST_ID),
    "leasehold.v1.KeyService/CancelRotation": _operators(Audit.EFFECT, Idempotency.REQUEST_ID),
    "leasehold.v1.KeyService/GetRotation": _ROTATION_LOOK,
    "leasehold.v1.KeyService/ListRotations": _ROTATION_LOOK,
    "leasehold.v1.KeyService/WatchRotation": _watched(_ROTATION_LOOK),
    "leasehold.v1.FleetService/ListSidecars": _OPERATOR_LOOK,
    "leasehold.v1.FleetService/BanSidecar": _operators(Audit.EFFECT, Idempotency.REPEATABLE),
    "leasehold.v1.FleetService/ReadmitSidecar": _operators(Audit.EFFECT, Idempotency.REPEATABLE),
    "leasehold.v1.FleetService/EvictSidecar": _operators(Audit.EFFECT, Idempotency.REPEATABLE),
    "leasehold.v1.AuditIngestService/AppendEvents": _SYNC,
    "leasehold.v1.SidecarService/SyncState": _SYNC,
    "grpc.health.v1.Health/Check": _PROBE,
    "grpc.health.v1.Health/List": _PROBE,
    "grpc.health.v1.Health/Watch": _PROBE,
}

_SECRET_ENDINGS = ("token", "secret", "password", "private_key", "api_key", "credential")
_PUBLIC = frozenset({"page_token", "next_page_token"})
_AUDIT_RECORD = "leasehold.v1.AuditRecord"


class AccessTableError(Exception):
    """What is served and what the table says differ. The process must not start."""

    def __init__(self, service: str, method: str, problem: str) -> None:
        """Say which method has which problem."""
        super().__init__(f"{service}/{method}: {problem}")


def methods_of(service: ServiceDescriptor, handled: Iterable[str]) -> dict[str, Method]:
    """The rows of one service, by method name, once proto, handlers and table agree.

    Args:
        service: from the generated module.
        handled: method names that have a handler.

    Raises:
        AccessTableError: a method is missing in one of the three, or does not do what its row says; says which.
    """
    prefix = f"{service.full_name}/"
    rows = {path.removeprefix(prefix): method for path, method in METHODS.items() if path.startswith(prefix)}
    defined = {method.name: method for method in service.methods}
    places = {"the proto": set(defined), "the handlers": set(handled), "the access table": set(rows)}
    known = set().union(*places.values())
    for place, names in places.items():
        missing = sorted(known - names)
        if missing:
            raise AccessTableError(service.full_name, missing[0], f"missing in {place}")
    for name, row in rows.items():
        wrong = row_wrong(row, defined[name])
        if wrong is not None:
            raise AccessTableError(service.full_name, name, wrong)
    return rows


def row_wrong(row: Method, method: MethodDescriptor) -> str | None:
    """Where a row and the method's messages disagree, in words; None when they agree."""
    takes_id = "request_id" in method.input_type.fields_by_name
    if takes_id is not (row.idempotency is Idempotency.REQUEST_ID):
        return f"idempotency is {row.idempotency}, but its request has {'a' if takes_id else 'no'} request_id"
    if row.mutating is not (row.audit is Audit.EFFECT):
        return f"idempotency is {row.idempotency}, but its audit class is {row.audit}"
    if (row.access is Access.ANYONE) is not (row.plane is Plane.HEALTH):
        return f"access class {row.access} is not for the plane {row.plane}"
    if not row.seconds_max and row.plane in {Plane.AGENTS, Plane.OPERATORS}:
        return "it has no bound in time"
    due = _due(row, method)
    if row.deadline is not due or bool(row.streams_max) is not (due is Deadline.AGE):
        return f"its deadline is {row.deadline} with {row.streams_max} streams, but what it is asks for {due}"
    shows = disclosed(method.output_type)
    if shows is not row.disclosure:
        return f"disclosure is {row.disclosure}, but its answer holds {shows}"
    return None


def _due(row: Method, method: MethodDescriptor) -> Deadline:
    if row.plane is Plane.HEALTH:
        return Deadline.FREE
    return Deadline.AGE if method.server_streaming or method.client_streaming else Deadline.REQUIRED


def disclosed(answer: Descriptor) -> Disclosure:
    """The most sensitive thing that this message may hold, at any depth, by its fields."""
    found, waiting, seen = Disclosure.STATE, [answer], {answer.full_name}
    while waiting:
        message = waiting.pop()
        if message.full_name == _AUDIT_RECORD:
            found = Disclosure.AUDIT_RECORDS
        for field in message.fields:
            if field.name.endswith(_SECRET_ENDINGS) and field.name not in _PUBLIC:
                return Disclosure.LEASE_TOKEN
            inner = field.message_type
            if inner is not None and inner.full_name not in seen:
                seen.add(inner.full_name)
                waiting.append(inner)
    return found
