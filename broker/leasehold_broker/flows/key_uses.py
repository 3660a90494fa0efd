"""Who uses which version of a key: at one sidecar from its books, in a fleet from what its sidecars report."""

from collections.abc import Sequence

from leasehold_broker.domain.key_use import KeyUse
from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_store import KeyStore


class ReportKeyUses:
    """What this sidecar uses, by name of the key. Implements `KeyUsers` where it runs alone."""

    def __init__(self, sidecar: str, books: Books, keys: KeyStore) -> None:
        """From these books, with these keys."""
        self._sidecar = sidecar
        self._books = books
        self._keys = keys

    def __call__(self) -> tuple[KeyUse, ...]:
        """Of every stored key that serves, or is used by a call or a lease that is not over."""
        oldest: dict[str, int] = {}
        used = [(call.key, call.key_version) for call in self._books.calls.values()]
        used += [(mark.key, mark.version) for mark in self._books.exposures.values()]
        for key, version in used:
            oldest[key] = min(version, oldest.get(key, version))
        try:
            records = self._keys.records()
        except Refusal:  # nothing can be had: the next call would be refused
            records = ()
        serving = {record.name: record.version for record in records if record.kind is KeyKind.STORED}
        return tuple(
            KeyUse(name, serving.get(name, 0), oldest.get(name, 0)) for name in sorted({*serving, *oldest}) if name
        )

    def of_older(self, key: str, version: int, since: Instant) -> Sequence[str]:
        """See the port."""
        del since
        return tuple(self._sidecar for use in self() if use.key == key and use.older_than(version))


class FleetKeyUsers:
    """Implements `KeyUsers` over the sidecars that the collector knows.

    One that is silent counts as a user until it refuses by itself. One that has said nothing of the key since the new
    value serves may have read the old one just before, and counts too: for one whose session is with another replica
    that is only known once its authority has passed since.
    """

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        """Of this fleet."""
        self._fleet = fleet
        self._clock = clock

    def of_older(self, key: str, version: int, since: Instant) -> Sequence[str]:
        """See the port."""
        now, found = self._clock.now(), []
        for name, member in sorted(self._fleet.members.items()):
            if self._fleet.lapsed(member, now):
                continue
            use = None if member.key_uses is None else member.key_uses.get(key)
            told = member.connected and member.key_uses is not None and self._fleet.spoke_after(member, since)
            if not told or (use is not None and use.older_than(version)):
                found.append(name)
        return tuple(found)
