"""The remote methods, typed. Owns their paths and message types, so that both clients call them alike."""

from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from leasehold.v1 import audit_service_pb2 as audit
from leasehold.v1 import budget_service_pb2 as budget
from leasehold.v1 import fleet_service_pb2 as fleet
from leasehold.v1 import key_service_pb2 as key
from leasehold.v1 import lease_service_pb2 as lease
from leasehold.v1 import revocation_service_pb2 as revocation


class Wire(Protocol):
    """What every generated message can do."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The bytes on the wire."""
        ...

    @classmethod
    def FromString(cls, s: bytes) -> Self:  # noqa: N802 - protobuf's name
        """The message of these bytes."""
        ...


Q = TypeVar("Q", bound=Wire)
A = TypeVar("A", bound=Wire)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """One remote method."""

    path: str
    request: type[Q]
    answer: type[A]


_LEASE = "/leasehold.v1.LeaseService/"
ACQUIRE = Method(_LEASE + "AcquireLease", lease.AcquireLeaseRequest, lease.AcquireLeaseResponse)
RENEW = Method(_LEASE + "RenewLease", lease.RenewLeaseRequest, lease.RenewLeaseResponse)
RELEASE = Method(_LEASE + "ReleaseLease", lease.ReleaseLeaseRequest, lease.ReleaseLeaseResponse)
GET = Method(_LEASE + "GetLease", lease.GetLeaseRequest, lease.GetLeaseResponse)
LIST = Method(_LEASE + "ListLeases", lease.ListLeasesRequest, lease.ListLeasesResponse)
DELEGATE = Method(_LEASE + "DelegateLease", lease.DelegateLeaseRequest, lease.DelegateLeaseResponse)
WATCH = Method(_LEASE + "WatchLease", lease.WatchLeaseRequest, lease.WatchLeaseResponse)

_REVOCATION = "/leasehold.v1.RevocationService/"
REVOKE = Method(_REVOCATION + "RevokeLeases", revocation.RevokeLeasesRequest, revocation.RevokeLeasesResponse)
GET_REVOCATION = Method(
    _REVOCATION + "GetRevocation", revocation.GetRevocationRequest, revocation.GetRevocationResponse
)
LIFT = Method(_REVOCATION + "LiftRevocation", revocation.LiftRevocationRequest, revocation.LiftRevocationResponse)
LIST_REVOCATIONS = Method(
    _REVOCATION + "ListRevocations", revocation.ListRevocationsRequest, revocation.ListRevocationsResponse
)
WATCH_REVOCATION = Method(
    _REVOCATION + "WatchRevocation", revocation.WatchRevocationRequest, revocation.WatchRevocationResponse
)

_FLEET = "/leasehold.v1.FleetService/"
LIST_SIDECARS = Method(_FLEET + "ListSidecars", fleet.ListSidecarsRequest, fleet.ListSidecarsResponse)
BAN_SIDECAR = Method(_FLEET + "BanSidecar", fleet.BanSidecarRequest, fleet.BanSidecarResponse)
READMIT_SIDECAR = Method(_FLEET + "ReadmitSidecar", fleet.ReadmitSidecarRequest, fleet.ReadmitSidecarResponse)
EVICT_SIDECAR = Method(_FLEET + "EvictSidecar", fleet.EvictSidecarRequest, fleet.EvictSidecarResponse)

_BUDGET = "/leasehold.v1.BudgetService/"
LIST_BUDGETS = Method(_BUDGET + "ListBudgets", budget.ListBudgetsRequest, budget.ListBudgetsResponse)
CHANGE_BUDGET = Method(_BUDGET + "ChangeBudget", budget.ChangeBudgetRequest, budget.ChangeBudgetResponse)

_KEY = "/leasehold.v1.KeyService/"
ROTATE = Method(_KEY + "RotateKey", key.RotateKeyRequest, key.RotateKeyResponse)
SUPPLY = Method(_KEY + "SupplyKey", key.SupplyKeyRequest, key.SupplyKeyResponse)
CANCEL_ROTATION = Method(_KEY + "CancelRotation", key.CancelRotationRequest, key.CancelRotationResponse)
LIST_ROTATIONS = Method(_KEY + "ListRotations", key.ListRotationsRequest, key.ListRotationsResponse)
WATCH_ROTATION = Method(_KEY + "WatchRotation", key.WatchRotationRequest, key.WatchRotationResponse)
GET_ROTATION = Method(_KEY + "GetRotation", key.GetRotationRequest, key.GetRotationResponse)

_AUDIT = "/leasehold.v1.AuditService/"
LIST_EVENTS = Method(_AUDIT + "ListEvents", audit.ListEventsRequest, audit.ListEventsResponse)
WATCH_EVENTS = Method(_AUDIT + "WatchEvents", audit.WatchEventsRequest, audit.WatchEventsResponse)
LIST_STREAMS = Method(_AUDIT + "ListStreams", audit.ListStreamsRequest, audit.ListStreamsResponse)
GET_CHECKPOINT = Method(_AUDIT + "GetCheckpoint", audit.GetCheckpointRequest, audit.GetCheckpointResponse)
GET_INCLUSION_PROOF = Method(
    _AUDIT + "GetInclusionProof", audit.GetInclusionProofRequest, audit.GetInclusionProofResponse
)
GET_CONSISTENCY_PROOF = Method(
    _AUDIT + "GetConsistencyProof", audit.GetConsistencyProofRequest, audit.GetConsistencyProofResponse
)
