"""What a sidecar reports of its live leases to the centre: names only, for dry runs of revocations."""

from collections.abc import Sequence

from leasehold_broker.domain.revocation_progress import LiveLease
from leasehold_broker.flows.books import Books


def live_leases(books: Books) -> Sequence[LiveLease]:
    """The live leases, by name."""
    names = sorted(name for live in books.live_of_subject.values() for name in live)
    leases = (books.leases[name] for name in names)
    return tuple(
        LiveLease(
            lease.name,
            lease.parent,
            lease.root,
            lease.subject.issuer,
            lease.subject.subject,
            lease.subject.environment,
            tuple(scope.key for scope in lease.scopes),
            tuple(scope.provider for scope in lease.scopes),
        )
        for lease in leases
    )
