"""OpenAI: the key of a project's service account. The account carries the mark as its name, and dies with its key.

Admin API, /v1/organization/projects/{id}/service_accounts and .../api_keys: names, pages and answers as in the types
of the official SDK (openai.types.admin). An account's key cannot be deleted by itself: the account is.
"""

from collections.abc import Mapping
from urllib.parse import urlencode

from leasehold_broker.adapters.minters.admin_api import AdminApi, AdminPlace, Fields, Reading, part
from leasehold_broker.adapters.minters.marks import fits_hint, mark
from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKey
from leasehold_broker.ports.upstream import Upstream

ORIGIN = "https://api.openai.com"
PAGE_SIZE = 100
_KEY_PREFIX = "key_"


class OpenAIKeys:
    """Implements `ProviderKeys` for one project."""

    switch_off = SwitchOff.DELETED

    def __init__(
        self, upstream: Upstream, admin: Reading, key: str, project: str, scopes: tuple[str, ...] = (), origin: str = ""
    ) -> None:
        """Make keys of this project.

        Args:
            upstream: knows the origin.
            admin: reads the organisation's admin key.
            key: our name of the key, which becomes a part of the mark.
            project: its id, "proj_...".
            scopes: what a key may do, e.g. ("api.responses.write",); empty: all that its project may.
            origin: "" for OpenAI's.
        """
        self._api = AdminApi(upstream, AdminPlace("OpenAI", origin or ORIGIN), admin)
        self._key = key
        self._at = f"/v1/organization/projects/{part(project)}"
        self._scopes = scopes

    async def mint(self, rotation: str) -> ProviderKey:
        """See the port."""
        await self.sweep(rotation, "")
        made = await self._api.ask("POST", f"{self._at}/service_accounts", {"name": mark(self._key, rotation)})
        minted = ProviderKey(self._api.secret(made, "api_key", "value"), self._api.text(made, "id"))
        if self._scopes:
            key_id = self._api.text(made, "api_key", "id")
            await self._api.ask("POST", f"{self._at}/api_keys/{part(key_id)}", {"scopes": list(self._scopes)})
        return minted

    async def sweep(self, rotation: str, keep_id: str) -> None:
        """See the port."""
        name = mark(self._key, rotation)
        for account in await self._all("service_accounts"):
            if account.get("name") == name and account.get("id") != keep_id:
                await self._delete("service_accounts", self._api.text(account, "id"))

    async def current_id(self, value: Secret) -> str:
        """See the port. The id of the account; of the key itself, where a person owns it; "" where several fit."""
        keys = await self._all("api_keys", owner_project_access="any")
        fitting = [key for key in keys if fits_hint(value, key.get("redacted_value"))]
        if len(fitting) != 1:
            return ""
        owned = _account(fitting[0])
        if not owned:
            return self._api.text(fitting[0], "id")
        # An account that has other keys too would take them along.
        return owned if sum(_account(key) == owned for key in keys) == 1 else ""

    async def end(self, key_id: str) -> None:
        """See the port."""
        await self._delete("api_keys" if key_id.startswith(_KEY_PREFIX) else "service_accounts", key_id)

    async def disable(self, key_id: str) -> None:
        """See the port: no key is kept and refused here."""
        await self.end(key_id)

    async def _delete(self, what: str, name: str) -> None:
        gone = await self._api.look("DELETE", f"{self._at}/{what}/{part(name)}")
        if gone is not None and gone.get("deleted") is not True:
            raise self._api.malformed("did not say that it is deleted: " + name)

    async def _all(self, what: str, **query: str) -> list[Fields]:
        def page(after: object) -> str:
            more = {"after": after} if isinstance(after, str) else {}
            return f"{self._at}/{what}?{urlencode({'limit': PAGE_SIZE, **query, **more})}"

        def following(found: Fields) -> str | None:
            return page(self._api.text(found, "last_id")) if found.get("has_more") is True else None

        return [
            each async for found in self._api.pages(page(None), following) for each in self._api.objects(found, "data")
        ]


def _account(key: Fields) -> str:
    """The id of the service account that owns a key; "" for a person's."""
    owner = key.get("owner")
    account = owner.get("service_account") if isinstance(owner, Mapping) else None
    found = account.get("id") if isinstance(account, Mapping) else None
    return found if isinstance(found, str) else ""
