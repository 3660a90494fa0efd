"""Asks a provider for its list of models with a key, or for what it knows of the key: free, and refused without one."""

import asyncio
from collections.abc import Mapping, Sequence

from leasehold_broker.domain.keys import KeyRecord
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import Provider, Route
from leasehold_broker.ports.upstream import Upstream, UpstreamFailure

PROBE_SECONDS_MAX = 15.0
WHY_BYTES_MAX = 64 * 1024
_ASKED_WHY = frozenset({400, 403})
"""Statuses that mean many things."""


class HttpKeyProbe:
    """Implements `KeyProbe` over the upstream of the egress."""

    def __init__(self, upstream: Upstream, targets: Mapping[str, tuple[Provider, str]]) -> None:
        """Ask through `upstream`; `targets`: each provider and its origin, by name."""
        self._upstream = upstream
        self._targets = dict(targets)

    def asks(self, provider: str) -> bool:
        """See the port."""
        target = self._targets.get(provider)
        return target is not None and _harmless(target[0]) is not None

    async def probe(self, record: KeyRecord, key: Secret) -> int:
        """See the port."""
        target = self._targets.get(record.provider)
        route = None if target is None else _harmless(target[0])
        if target is None or route is None:
            return 0
        provider, origin = target
        request = provider.request(route, {}, None, None, record.kind)
        waiting = _Status(provider)
        call = self._upstream.send(origin, request, lambda: provider.key_header(key, record.kind), waiting)
        try:
            async with asyncio.timeout(PROBE_SECONDS_MAX):
                return await waiting.status
        except TimeoutError:
            return 0
        finally:
            call.abort()


def _harmless(provider: Provider) -> Route | None:
    """What shows whether a key is good: the vendor's listing of models, where it has one that asks for a key."""
    if provider.probe_path:
        return Route("key.get", "GET", None, provider.probe_path, takes_body=False)
    for path in (f"{provider.sdk_path}/models", "/v1/models", "/v1beta/models"):
        try:
            route = provider.route("GET", path, "")
        except Refusal:
            continue
        if not route.takes_body:
            return route
    return None


class _Status:
    """The listener of one answer, of which the status is enough, where it says what is the matter."""

    def __init__(self, provider: Provider) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._provider = provider
        self._refused_with = 0
        self._headers: Mapping[str, str] = {}
        self._body = bytearray()

    def answer_started(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """See the port."""
        if status in _ASKED_WHY:
            self._refused_with, self._headers = status, dict(headers)
        else:
            self._say(status)

    def body_received(self, data: bytes) -> None:
        """See the port."""
        if self._refused_with:
            # One byte past the bound says that there was more: then the part that came first is no answer either.
            self._body += data[: WHY_BYTES_MAX + 1 - len(self._body)]

    def answer_finished(self) -> None:
        """See the port."""
        if self._refused_with:
            body = bytes(self._body) if len(self._body) <= WHY_BYTES_MAX else b""
            told = self._provider.told_limit(self._refused_with, self._headers, body)
            self._say(401 if told.refused else self._refused_with)

    def answer_failed(self, failure: UpstreamFailure) -> None:
        """See the port."""
        del failure
        self._say(self._refused_with)

    def _say(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)
