"""Azure: an account has two keys, and no more. The one that is not in use is made anew; the other is never touched.

Resource manager, Microsoft.CognitiveServices/accounts: listKeys and regenerateKey, as in the models of
azure-mgmt-cognitiveservices. An id is the slot and a digest of the value that was in it: ending a key whose slot holds
another value by now has no effect.
"""

import hashlib

from leasehold_broker.adapters.minters.admin_api import AdminApi, AdminPlace, Reading, part
from leasehold_broker.adapters.minters.marks import checked
from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKey, ProviderKeyFault, ProviderKeyState
from leasehold_broker.ports.upstream import Upstream

ORIGIN = "https://management.azure.com"
API_VERSION = "2025-09-01"
SLOTS = {"key1": "Key1", "key2": "Key2"}


class AzureKeys:
    """Implements `ProviderKeys` for one account. The admin key is an Entra access token."""

    switch_off = SwitchOff.REPLACED

    def __init__(
        self,
        upstream: Upstream,
        admin: Reading,
        current: Reading,
        subscription: str,
        resource_group: str,
        account: str,
        origin: str = "",
    ) -> None:
        """Make keys of this account.

        Args:
            upstream: knows the origin.
            admin: reads an access token for the resource manager.
            current: reads the key that is in use now, from its store and from no cache.
            subscription: its id.
            resource_group: its name.
            account: its name.
            origin: "" for Azure's public cloud.
        """
        self._api = AdminApi(upstream, AdminPlace("Azure", origin or ORIGIN), admin)
        self._current = current
        self._at = (
            f"/subscriptions/{part(subscription)}/resourceGroups/{part(resource_group)}"
            f"/providers/Microsoft.CognitiveServices/accounts/{part(account)}"
        )

    async def mint(self, rotation: str) -> ProviderKey:
        """See the port. Azure carries no mark: until the new key is in use, a repeat makes the same slot anew."""
        checked(rotation)
        used = await self._current()
        before = await self._keys("listKeys")
        held = [slot for slot, value in before.items() if value == used]
        if len(held) != 1:
            message = (
                "neither of the account's two keys is the one in use, so none can be spared; correct the key in its "
                "store, or the account in the configuration"
            )
            raise ProviderKeyFault(ProviderKeyState.MALFORMED, message)
        free = next(slot for slot in SLOTS if slot != held[0])
        after = await self._keys("regenerateKey", free)
        if after[free] == before[free] or after[held[0]] != used:
            raise self._api.malformed("did not make the free key anew, and it alone; look at both in the portal")
        return ProviderKey(after[free], _id(free, after[free]))

    async def sweep(self, rotation: str, keep_id: str) -> None:
        """See the port: there are two slots, and what is in them is all there is."""

    async def current_id(self, value: Secret) -> str:
        """See the port."""
        found = await self._keys("listKeys")
        return next((_id(slot, held) for slot, held in found.items() if held == value), "")

    async def end(self, key_id: str) -> None:
        """See the port. Its slot is made anew, and the value that is in it then is shown to nobody."""
        slot = key_id.partition(":")[0]
        if slot not in SLOTS:
            return
        found = await self._keys("listKeys")
        if _id(slot, found[slot]) == key_id:
            await self._keys("regenerateKey", slot)

    async def disable(self, key_id: str) -> None:
        """See the port: a slot is never empty."""
        await self.end(key_id)

    async def _keys(self, action: str, slot: str = "") -> dict[str, Secret]:
        body = {"keyName": SLOTS[slot]} if slot else None
        said = await self._api.ask("POST", f"{self._at}/{action}?api-version={API_VERSION}", body)
        return {slot: self._api.secret(said, slot) for slot in SLOTS}


def _id(slot: str, value: Secret) -> str:
    """A key is long and random: 64 bits of its digest find it again, and tell nothing of it."""
    return f"{slot}:{hashlib.sha256(value.reveal()).hexdigest()[:16]}"
