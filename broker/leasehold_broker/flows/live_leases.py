"""What a sidecar reports of its live leases to the centre: names only, for dry runs of revocations."""

from collections.abc import Sequence

from leasehold_broker.domain.revocation_progress import LiveLease
from leasehold_broker.flows.books import Books


class ReportLeases:
    """The live leases, by name; listed anew only when one has come or gone."""

    def __init__(self, books: Books) -> None:
        """Report of these books."""
        self._books = books
        self._changes = -1
        self._listed: Sequence[LiveLease] = ()

    def __call__(self) -> Sequence[LiveLease]:
        """The list; the same object for as long as nothing has changed."""
        if self._changes != self._books.live_changes:
            self._changes = self._books.live_changes
            self._listed = live_leases(self._books)
        return self._listed


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
            tuple(sorted(lease.subject.labels.items())),
        )
        for lease in leases
    )
