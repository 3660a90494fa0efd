"""A key and all that its rotation, or its end at the provider, needs."""

from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.keys import KeyRecord, KeyState
from leasehold_broker.domain.rotation import RotationLimits
from leasehold_broker.domain.secret import Secret
from leasehold_broker.flows.root_steps import RotatedRoot
from leasehold_broker.ports.key_admin import KeyAdmin
from leasehold_broker.ports.key_probe import KeyProbe
from leasehold_broker.ports.key_source import KeySource
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeys, ProviderKeyState


class RotatedStore(KeySource, KeyAdmin, Protocol):
    """A store whose keys are read and rotated."""


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """A key and all that its rotation needs.

    Args:
        name, provider, environment: of the key.
        store: where it is kept.
        at_provider: makes and ends it there.
        probe: asks the provider whether it takes one.
        limits: how long each part may take.
    """

    name: str
    provider: str
    environment: str
    store: RotatedStore
    at_provider: ProviderKeys
    probe: KeyProbe
    limits: RotationLimits

    async def status(self, value: Secret) -> int:
        """The provider's answer to the harmless call with this value."""
        record = KeyRecord(self.name, self.provider, self.environment, KeyState.ENABLED, 0, 0)
        return await self.probe.probe(record, value)

    async def version(self) -> int:
        """Of the value that serves now. Raises SourceFault."""
        found = await self.store.read(self.name)
        return found.number if found.number is not None else found.created_wall_ms

    async def id_of(self, value: Secret) -> str:
        """The provider's id of the key with this value; "" when it cannot be told. Raises ProviderKeyFault."""
        try:
            return await self.at_provider.current_id(value)
        except ProviderKeyFault as fault:
            if fault.state is ProviderKeyState.BY_HAND:
                return ""
            raise


AnyRotated = RotatedKey | RotatedRoot
"""Something that is rotated."""
