"""A service of the operator's that makes and ends keys: POST of one JSON object, signed as Standard Webhooks has it.

    {"action": "mint", "key": KEY, "rotation": ROTATION}     answered with {"id": "...", "value": "..."}
    {"action": "current", "key": KEY, "value": VALUE}        {"id": "..."}, "" when it cannot tell
    {"action": "end", "key": KEY, "id": ID}                  {}
    {"action": "sweep", "key": KEY, "rotation": ROTATION, "keep": ID}    {}; ends all of this rotation but ID or ""
    {"action": "disable", "key": KEY, "id": ID}              {}; in a way that can be undone. Only with `can_disable`

A request that is repeated has the same webhook-id: of mint, rotation and key decide it. Statuses mean what they mean at
every admin API here; 507 says that the provider keeps no more keys, 404 to a sweep that there is no such action.
"""

import hashlib
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from leasehold_broker.adapters.minters.admin_api import ABSENT, AdminApi, AdminPlace, Reading
from leasehold_broker.adapters.minters.handed import handed_id, handed_key
from leasehold_broker.adapters.minters.marks import checked
from leasehold_broker.adapters.standard_webhooks import signature, signing_key
from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKey, ProviderKeyFault, ProviderKeyState
from leasehold_broker.ports.upstream import Upstream


class WebhookKeys:
    """Implements `ProviderKeys`."""

    def __init__(
        self,
        upstream: Upstream,
        signing: Reading,
        key: str,
        url: str,
        wall_seconds: Callable[[], int],
        *,
        can_disable: bool = False,
    ) -> None:
        """Post there.

        Args:
            upstream: knows the origin of `url`.
            signing: reads the key of the signature, as text or as "whsec_" and base64.
            key: our name of the key.
            url: of the service.
            wall_seconds: Unix time, for the signature.
            can_disable: the service knows how to make a key inactive.
        """
        self.switch_off = SwitchOff.INACTIVE if can_disable else SwitchOff.CUSTOM
        parts = urlsplit(url)
        self._upstream = upstream
        self._signing = signing
        self._key = key
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._wall_seconds = wall_seconds

    async def mint(self, rotation: str) -> ProviderKey:
        """See the port: the service has to keep its promise, to end first what it made before for this rotation."""
        api = self._api("mint", checked(rotation))
        said = await api.ask("POST", self._path, {"action": "mint", "key": self._key, "rotation": rotation})
        try:
            return handed_key(said)
        except ValueError as wrong:
            raise api.malformed(str(wrong)) from None

    async def sweep(self, rotation: str, keep_id: str) -> None:
        """See the port: as far as the service can."""
        body = {"action": "sweep", "key": self._key, "rotation": checked(rotation), "keep": keep_id}
        await self._api("sweep", f"{rotation} {keep_id}").look("POST", self._path, body, ABSENT)

    async def current_id(self, value: Secret) -> str:
        """See the port."""
        api = self._api("current", str(self._wall_seconds()))
        shown = value.reveal().decode("ascii")
        said = await api.ask("POST", self._path, {"action": "current", "key": self._key, "value": shown})
        try:
            return handed_id(said)
        except ValueError as wrong:
            raise api.malformed(str(wrong)) from None

    async def end(self, key_id: str) -> None:
        """See the port."""
        body: Mapping[str, object] = {"action": "end", "key": self._key, "id": key_id}
        await self._api("end", key_id).look("POST", self._path, body, ABSENT)

    async def disable(self, key_id: str) -> None:
        """See the port."""
        if self.switch_off is not SwitchOff.INACTIVE:
            return await self.end(key_id)
        body: Mapping[str, object] = {"action": "disable", "key": self._key, "id": key_id}
        await self._api("disable", key_id).look("POST", self._path, body, ABSENT)
        return None

    def _api(self, action: str, of: str) -> "_SignedApi":
        name = "msg_" + hashlib.sha256(f"{action} {self._key} {of}".encode()).hexdigest()[:32]
        return _SignedApi(self._upstream, self._origin, self._signing_key, name, str(self._wall_seconds()))

    async def _signing_key(self) -> Secret:
        """The key of the signature, which is one."""
        secret = await self._signing()
        try:
            signing_key(secret.reveal())
        except ValueError:
            message = "the signing key of the webhook begins with whsec_, and what follows is not base64"
            raise ProviderKeyFault(ProviderKeyState.LOGIN_REFUSED, message) from None
        return secret


class _SignedApi(AdminApi):
    """One request whose last header is its signature."""

    def __init__(self, upstream: Upstream, origin: str, signing: Reading, name: str, seconds: str) -> None:
        headers = (("webhook-id", name), ("webhook-timestamp", seconds))
        super().__init__(upstream, AdminPlace("the webhook", origin, "webhook-signature", b"", headers), signing)
        self._name, self._seconds = name, seconds

    def credential(self, admin: Secret, data: bytes) -> tuple[str, bytes]:
        """The signature."""
        key = signing_key(admin.reveal())
        return "webhook-signature", signature(key, self._name, self._seconds, data).encode()
