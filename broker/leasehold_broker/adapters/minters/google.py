"""Google: API keys of a project, restricted to the services they are for. The key's own id is the mark.

API Keys API v2, projects.locations.keys: create and delete are long-running operations; names, pages and answers as in
the types of google-cloud-api-keys. A value can be read again: a repeat reads what the first attempt made. A deleted key
can be brought back for 30 days, and old-style keys go on working for minutes (google-cloud documents no bound).
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlencode

from leasehold_broker.adapters.minters.admin_api import AdminApi, AdminPlace, Fields, Reading, part
from leasehold_broker.adapters.minters.marks import MARK_PREFIX, mark
from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKey, ProviderKeyFault, ProviderKeyState
from leasehold_broker.ports.upstream import Upstream

ORIGIN = "https://apikeys.googleapis.com"
PAGE_SIZE = 300
COMPARED_MAX = 300
"""Values are read one by one to find which key one is; a project has at most so many."""
POLLS_MAX = 30
NAMES_MAX = 8
# google.rpc.Code, of an operation that ended in an error.
_STATUS = {3: 400, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 14: 503, 16: 401}


class GoogleKeys:
    """Implements `ProviderKeys` for one project. The admin key is an OAuth access token."""

    switch_off = SwitchOff.RESTORABLE

    def __init__(
        self,
        upstream: Upstream,
        admin: Reading,
        key: str,
        project: str,
        services: tuple[str, ...],
        service_account: str = "",
        origin: str = "",
        poll_seconds: float = 0.2,
    ) -> None:
        """Make keys of this project.

        Args:
            upstream: knows the origin.
            admin: reads an access token.
            key: our name of the key, which becomes a part of the mark.
            project: id or number.
            services: what a key may reach, e.g. ("generativelanguage.googleapis.com",); never empty.
            service_account: whose rights a key has; "" for none, as standard keys.
            origin: "" for Google's.
            poll_seconds: between two looks at an operation; doubled up to sixteen times that.
        """
        self._api = AdminApi(upstream, AdminPlace("Google", origin or ORIGIN), admin)
        self._key = key
        self._at = f"/v2/projects/{part(project)}/locations/global/keys"
        self._services = services
        self._service_account = service_account
        self._poll_seconds = poll_seconds

    async def mint(self, rotation: str) -> ProviderKey:
        """See the port."""
        name = mark(self._key, rotation)
        for key_id in _ids(name):
            found = await self._api.look("GET", f"{self._at}/{key_id}")
            if found is None:
                found = await self._create(key_id, name)
            if found is not None and not found.get("deleteTime"):
                return ProviderKey(await self._value(key_id), key_id)
        raise ProviderKeyFault(
            ProviderKeyState.FULL, f"Google knows {NAMES_MAX - 1} deleted keys of {rotation!r} already"
        )

    async def sweep(self, rotation: str, keep_id: str) -> None:
        """See the port."""
        for key_id in _ids(mark(self._key, rotation)):
            found = await self._api.look("GET", f"{self._at}/{key_id}")
            if found is None:
                return
            if key_id != keep_id:
                await self.end(key_id)

    async def current_id(self, value: Secret) -> str:
        """See the port. Values are compared here: looking one up would put it into a URL."""
        ids = [self._id(key) for key in await self._all()]
        ids.sort(key=lambda each: not each.startswith(MARK_PREFIX))
        for key_id in ids[:COMPARED_MAX]:
            if await self._value(key_id) == value:
                return key_id
        return ""

    async def end(self, key_id: str) -> None:
        """See the port."""
        found = await self._api.look("GET", f"{self._at}/{part(key_id)}")
        if found is None or found.get("deleteTime"):
            return
        operation = await self._api.look("DELETE", f"{self._at}/{part(key_id)}")
        if operation is not None:
            await self._done(operation)

    async def disable(self, key_id: str) -> None:
        """See the port: a deleted key can be brought back for 30 days."""
        await self.end(key_id)

    async def _create(self, key_id: str, name: str) -> Fields | None:
        """What was made; None when the id is taken, by a deleted key or by an attempt that is under way."""
        body: dict[str, object] = {
            "displayName": name,
            "restrictions": {"apiTargets": [{"service": service} for service in self._services]},
        }
        if self._service_account:
            body["serviceAccountEmail"] = self._service_account
        path = f"{self._at}?{urlencode({'keyId': key_id})}"
        operation = await self._api.look("POST", path, body, absent=frozenset({409}))
        if operation is None:
            return await self._api.look("GET", f"{self._at}/{key_id}")
        return await self._done(operation)

    async def _done(self, operation: Fields) -> Fields:
        """What an operation came to."""
        wait = self._poll_seconds
        for _ in range(POLLS_MAX):
            if operation.get("done") is True:
                break
            await asyncio.sleep(wait)
            wait = min(wait * 2, self._poll_seconds * 16)
            operation = await self._api.ask("GET", f"/v2/{self._api.text(operation, 'name')}")
        else:
            message = "Google has not done yet what was asked; try again"
            raise ProviderKeyFault(ProviderKeyState.UNREACHABLE, message)
        error, response = operation.get("error"), operation.get("response", {})
        if isinstance(error, Mapping):
            code = error.get("code")
            raise self._api.fault(_STATUS.get(code, 500) if isinstance(code, int) else 500)
        return response if isinstance(response, Mapping) else {}

    async def _value(self, key_id: str) -> Secret:
        return self._api.secret(await self._api.ask("GET", f"{self._at}/{part(key_id)}/keyString"), "keyString")

    def _id(self, key: Fields) -> str:
        return self._api.text(key, "name").rpartition("/")[2]

    async def _all(self) -> list[Fields]:
        def page(token: object) -> str:
            more = {"pageToken": token} if isinstance(token, str) else {}
            return f"{self._at}?{urlencode({'pageSize': PAGE_SIZE, **more})}"

        def following(found: Fields) -> str | None:
            token = found.get("nextPageToken")
            return page(token) if isinstance(token, str) and token else None

        return [
            each async for found in self._api.pages(page(None), following) for each in self._api.objects(found, "keys")
        ]


def _ids(name: str) -> tuple[str, ...]:
    """What a key of this mark may be called: the id of a deleted key is taken for 30 days, and the next one is used."""
    return (name, *(f"{name}-{number}" for number in range(2, NAMES_MAX)))
