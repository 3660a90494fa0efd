"""OpenRouter: keys by a management key, with the mark as their name and a spending limit of their own.

/api/v1/keys: names, pages and answers as in the models of the official SDK (openrouter.operations). A key is known by
its hash, which is no part of it.
"""

from collections.abc import Mapping
from urllib.parse import urlencode

from leasehold_broker.adapters.minters.admin_api import AdminApi, AdminPlace, Fields, Reading, part
from leasehold_broker.adapters.minters.marks import fits_hint, mark
from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKey
from leasehold_broker.ports.upstream import Upstream

ORIGIN = "https://openrouter.ai"
AT = "/api/v1/keys"


class OpenRouterKeys:
    """Implements `ProviderKeys` for the account of a management key."""

    switch_off = SwitchOff.INACTIVE

    def __init__(
        self,
        upstream: Upstream,
        admin: Reading,
        key: str,
        workspace: str = "",
        limit_usd: int = 0,
        limit_reset: str = "",
        origin: str = "",
    ) -> None:
        """Make keys of this account.

        Args:
            upstream: knows the origin.
            admin: reads the management key.
            key: our name of the key, which becomes a part of the mark.
            workspace: id of the workspace of its keys; "": the account's default.
            limit_usd: what a key may spend, in whole dollars; 0: no limit.
            limit_reset: "daily", "weekly" or "monthly": the limit begins anew; "": it is for good.
            origin: "" for OpenRouter's.
        """
        self._api = AdminApi(upstream, AdminPlace("OpenRouter", origin or ORIGIN), admin)
        self._key = key
        self._where = {"workspace_id": workspace} if workspace else {}
        wanted = {"limit": limit_usd, "limit_reset": limit_reset, **self._where}
        self._wanted = {name: value for name, value in wanted.items() if value}

    async def mint(self, rotation: str) -> ProviderKey:
        """See the port."""
        await self.sweep(rotation, "")
        made = await self._api.ask("POST", AT, {"name": mark(self._key, rotation), **self._wanted})
        return ProviderKey(self._api.secret(made, "key"), self._api.text(made, "data", "hash"))

    async def sweep(self, rotation: str, keep_id: str) -> None:
        """See the port."""
        name = mark(self._key, rotation)
        for known in await self._all():
            if known.get("name") == name and known.get("hash") != keep_id:
                await self.end(self._api.text(known, "hash"))

    async def current_id(self, value: Secret) -> str:
        """See the port. "" where several labels fit."""
        fitting = [known for known in await self._all() if fits_hint(value, known.get("label"))]
        return self._api.text(fitting[0], "hash") if len(fitting) == 1 else ""

    async def end(self, key_id: str) -> None:
        """See the port."""
        gone = await self._api.look("DELETE", f"{AT}/{part(key_id)}")
        if gone is not None and gone.get("deleted") is not True:
            raise self._api.malformed("did not say that it is deleted: " + key_id)

    async def disable(self, key_id: str) -> None:
        """See the port."""
        told = await self._api.look("PATCH", f"{AT}/{part(key_id)}", {"disabled": True})
        data = {} if told is None else told.get("data")
        if told is not None and (not isinstance(data, Mapping) or data.get("disabled") is not True):
            raise self._api.malformed("did not say that it is disabled: " + key_id)

    async def _all(self) -> list[Fields]:
        """All keys. Pages are told apart by an offset alone: the list ends with an empty one."""
        count = 0

        def page() -> str:
            return f"{AT}?{urlencode({'include_disabled': 'true', 'offset': count, **self._where})}"

        def following(found: Fields) -> str | None:
            nonlocal count
            size = len(self._api.objects(found, "data"))
            count += size
            return page() if size else None

        return [each async for found in self._api.pages(page(), following) for each in self._api.objects(found, "data")]
