"""A provider's account with keys, in memory: makes, ends and judges keys as a real one does; knows all it ever made.

Implements `ProviderKeys` and `KeyProbe`. Faults, latency and death are the test's to plant.
"""

from dataclasses import dataclass

from tests.fakes.planted import planted

from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKey, ProviderKeyFault, ProviderKeyState


@dataclass
class Made:
    """One key of the account."""

    id: str
    value: str
    mark: str = ""
    alive: bool = True


class ProviderAccount:
    """Keys by id, in the order of making."""

    def __init__(self, first: str = planted("old"), keys_max: int = 10) -> None:
        """With one key; no more than `keys_max` alive."""
        self.keys: list[Made] = [Made("key-1", first)]
        self.keys_max = keys_max
        self.by_hand = False
        self.mint_fault: ProviderKeyFault | None = None
        self.mute = False
        self.tells_ids = True
        self.switch_off = SwitchOff.INACTIVE
        self.disabled: list[str] = []

    def alive(self) -> list[Made]:
        """Keys that work."""
        return [key for key in self.keys if key.alive]

    def minted_for(self, rotation: str) -> list[Made]:
        """Keys of one rotation that work."""
        return [key for key in self.alive() if key.mark == rotation]

    def works(self, value: str) -> bool:
        """A call with this value would be served."""
        return any(key.value == value for key in self.alive())

    async def mint(self, rotation: str) -> ProviderKey:
        """See the port."""
        self._by_hand()
        if self.mint_fault is not None:
            raise self.mint_fault
        for key in self.minted_for(rotation):
            key.alive = False
        if len(self.alive()) >= self.keys_max:
            raise ProviderKeyFault(ProviderKeyState.FULL, "the account keeps no more keys; retire one first")
        number = len(self.keys) + 1
        made = Made(f"key-{number}", planted(f"minted-{number:06d}"), rotation)
        self.keys.append(made)
        return ProviderKey(Secret(made.value.encode()), made.id)

    async def sweep(self, rotation: str, keep_id: str) -> None:
        """See the port."""
        for key in self.minted_for(rotation):
            key.alive = key.id == keep_id

    async def current_id(self, value: Secret) -> str:
        """See the port."""
        if not self.tells_ids:
            return ""
        text = value.reveal().decode()
        return next((key.id for key in self.keys if key.value == text), "")

    async def end(self, key_id: str) -> None:
        """See the port."""
        self._by_hand()
        for key in self.keys:
            if key.id == key_id:
                key.alive = False

    async def disable(self, key_id: str) -> None:
        """See the port."""
        await self.end(key_id)
        self.disabled.append(key_id)

    def asks(self, _provider):
        """See the port."""
        return True

    async def probe(self, _record: object, key: Secret) -> int:
        """See the port."""
        if self.mute:
            return 0
        return 200 if self.works(key.reveal().decode()) else 401

    def by_person(self, value: str) -> None:
        """A person makes a key in the provider's console."""
        self.keys.append(Made(f"key-{len(self.keys) + 1}", value))

    def _by_hand(self) -> None:
        if self.by_hand:
            raise ProviderKeyFault(ProviderKeyState.BY_HAND, "this provider makes keys in its console only")
