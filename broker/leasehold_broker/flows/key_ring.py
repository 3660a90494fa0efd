"""All keys of a sidecar, whatever store each is in. Owns that a name belongs to one store."""

from collections.abc import Mapping, Sequence

from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.keys import KeyRecord
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_store import KeyStore


class KeyRing:
    """Implements `KeyStore` over several."""

    def __init__(self, named: Mapping[str, KeyStore], others: KeyStore | None) -> None:
        """Join stores.

        Args:
            named: keys that the configuration names, each in its store.
            others: the store of all other names; a name of its own that `named` has too is never served.
        """
        self._named = dict(named)
        self._others = others

    def records(self) -> Sequence[KeyRecord]:
        """The keys of every store that can be read: one that cannot takes no other with it.

        Raises:
            Refusal: KEY_UNAVAILABLE when `others` cannot be read and no other key is there.
        """
        found = [record for name, store in self._named.items() if (record := store.find(name)) is not None]
        try:
            others = () if self._others is None else self._others.records()
        except Refusal:
            if not found:
                raise
            others = ()
        return (*found, *(record for record in others if record.name not in self._named))

    def find(self, name: str) -> KeyRecord | None:
        """See the port."""
        store = self._named.get(name, self._others)
        return None if store is None else store.find(name)

    async def secret(self, name: str, models: tuple[str, ...] = (), holder: Subject | None = None) -> Secret:
        """See the port."""
        store = self._named.get(name, self._others)
        if store is None:
            raise Refusal(Reason.KEY_UNAVAILABLE, f"key {name!r} is in no store; ask the platform team to add it")
        return await store.secret(name, models, holder)
