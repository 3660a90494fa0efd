"""The answer of acquire and delegate."""

from dataclasses import dataclass

from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.secret import Secret


@dataclass(frozen=True, slots=True)
class Issued:
    """A lease and the token that exercises it; the token is None when the request only asked for validation."""

    lease: Lease
    token: Secret | None
