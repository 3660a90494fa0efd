"""The answer of acquire and delegate."""

from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.values import value


@value
class Issued:
    """A lease and the token that exercises it; the token is None when the request only asked for validation."""

    lease: Lease
    token: Secret | None
