"""Which reported leases a number of selectors match. Owns that a thousand selectors do not look at each lease each.

Names of leases and whole subjects are looked up; every other selector is asked.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from leasehold_broker.domain.revocation import ByLease, BySubject, Selector
from leasehold_broker.domain.revocation_progress import LiveLease, selects_live
from leasehold_broker.domain.scope import ANYTHING


class SelectorMatching:
    """These selectors, by their place in the list."""

    def __init__(self, selectors: Sequence[Selector]) -> None:
        """Prepare for many leases."""
        self._by_lease: defaultdict[str, list[int]] = defaultdict(list)
        self._by_subject: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        self._asked: list[tuple[int, Selector]] = []
        for place, selector in enumerate(selectors):
            match selector:
                case ByLease(name):
                    self._by_lease[name].append(place)
                case BySubject(issuer, subject) if not subject.endswith(ANYTHING):
                    self._by_subject[subject].append((place, issuer))
                case _:
                    self._asked.append((place, selector))

    def found(self, leases: Iterable[LiveLease], sidecar: str) -> list[tuple[LiveLease, list[int]]]:
        """The leases that any of them matches, and the places of those that do.

        Args:
            leases: the live leases of one sidecar; a live lease's parents are live and listed too.
            sidecar: whose leases these are.
        """
        by_name = {lease.name: lease for lease in leases}
        matched = ((lease, self._places(lease, by_name, sidecar)) for lease in by_name.values())
        return [(lease, places) for lease, places in matched if places]

    def _places(self, lease: LiveLease, by_name: Mapping[str, LiveLease], sidecar: str) -> list[int]:
        places = [place for place, selector in self._asked if selects_live(selector, lease, by_name, sidecar)]
        if self._by_lease:
            for name in _tree_of(lease, by_name):
                places += self._by_lease.get(name, ())
        for place, issuer in self._by_subject.get(lease.subject, ()):
            if issuer in ("", lease.issuer):
                places.append(place)
        return places


def _tree_of(lease: LiveLease, by_name: Mapping[str, LiveLease]) -> set[str]:
    """Its own name and those of all above it; a list that goes round in a circle ends."""
    names = {lease.root}
    current: LiveLease | None = lease
    while current is not None and current.name not in names - {lease.root}:
        names.add(current.name)
        current = by_name.get(current.parent)
    return names
