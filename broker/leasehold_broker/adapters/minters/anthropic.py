"""Anthropic: no key is made over its API; a key that is in use is found by its hint, and made inactive.

Admin API, /v1/organizations/api_keys: names, pages and answers as in the types of the official SDK
(anthropic.types.organization). An inactive key can be made active again in the console; an archived one cannot.
"""

from urllib.parse import urlencode

from leasehold_broker.adapters.minters.admin_api import AdminApi, AdminPlace, Fields, Reading, part
from leasehold_broker.adapters.minters.marks import fits_hint, mark
from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKey, ProviderKeyFault, ProviderKeyState
from leasehold_broker.ports.upstream import Upstream

ORIGIN = "https://api.anthropic.com"
AT = "/v1/organizations/api_keys"
PAGE_SIZE = 1000


class AnthropicKeys:
    """Implements `ProviderKeys` for one organisation, as far as its API goes."""

    switch_off = SwitchOff.INACTIVE

    def __init__(self, upstream: Upstream, admin: Reading, key: str, workspace: str = "", origin: str = "") -> None:
        """Find and end keys.

        Args:
            upstream: knows the origin.
            admin: reads an admin key.
            key: our name of the key, which becomes a part of the mark that a person is asked to use.
            workspace: keys of this one alone are looked at, "wrkspc_..."; "": of all.
            origin: "" for Anthropic's.
        """
        place = AdminPlace("Anthropic", origin or ORIGIN, "x-api-key", b"", (("anthropic-version", "2023-06-01"),))
        self._api = AdminApi(upstream, place, admin)
        self._key = key
        self._workspace = workspace

    async def mint(self, rotation: str) -> ProviderKey:
        """Say by whom it has to be made."""
        message = (
            "Anthropic makes no keys over its API: make one in the console (Settings, API keys) by the name "
            f"{mark(self._key, rotation)!r}, in the workspace of {self._key!r}, and hand it over"
        )
        raise ProviderKeyFault(ProviderKeyState.BY_HAND, message)

    async def sweep(self, rotation: str, keep_id: str) -> None:
        """See the port: what a person has made is a person's to end."""

    async def current_id(self, value: Secret) -> str:
        """See the port. "" where several hints fit."""
        fitting = [key for key in await self._all() if fits_hint(value, key.get("partial_key_hint"))]
        return self._api.text(fitting[0], "id") if len(fitting) == 1 else ""

    async def end(self, key_id: str) -> None:
        """See the port."""
        found = await self._api.look("GET", f"{AT}/{part(key_id)}")
        if found is None or found.get("status") != "active":
            return
        ended = await self._api.look("POST", f"{AT}/{part(key_id)}", {"status": "inactive"})
        if ended is not None and ended.get("status") != "inactive":
            raise self._api.malformed("did not say that it is inactive: " + key_id)

    async def disable(self, key_id: str) -> None:
        """See the port: to end a key is no more than that here."""
        await self.end(key_id)

    async def _all(self) -> list[Fields]:
        wanted = {"limit": str(PAGE_SIZE), "status": "active"}
        if self._workspace:
            wanted["workspace_id"] = self._workspace

        def page(more: dict[str, str]) -> str:
            return f"{AT}?{urlencode(wanted | more)}"

        def following(found: Fields) -> str | None:
            return page({"after_id": self._api.text(found, "last_id")}) if found.get("has_more") is True else None

        return [
            each async for found in self._api.pages(page({}), following) for each in self._api.objects(found, "data")
        ]
