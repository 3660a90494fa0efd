"""The async client: the twin of `leasehold.client` and `leasehold.lease` for asyncio, one event loop each.

Owns only the waiting; what a request says, how an answer is read and when to renew are shared with the blocking client.
"""

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Self, Unpack

from leasehold import _methods as methods
from leasehold._channel import AsyncLink
from leasehold._identity import Identity, Proof, TokenSource
from leasehold._messages import (
    Asked,
    LeaseInfo,
    Usage,
    acquire_request,
    delegate_request,
    lease_info,
    new_request_id,
    wanted,
)
from leasehold._renewal import read_clocks
from leasehold._settings import TIMEOUT_SECONDS, Settings, TlsFiles
from leasehold._state import LeaseState, OnLost, announce
from leasehold.errors import LeaseEnded, LeaseholdError, NotFound
from leasehold.lease import LeaseBase
from leasehold.v1 import lease_service_pb2 as service

_LOG = logging.getLogger("leasehold")


class LeaseHandle(LeaseBase):
    """A lease, renewed by a background task until it is released. Use it as an async context manager.

    Attributes:
        lost: set when the lease has ended without its holder's doing; see the blocking twin.
    """

    def __init__(self, client: "LeaseholdClient", state: LeaseState, on_lost: OnLost | None, *, renew: bool) -> None:
        """Made by `LeaseholdClient.acquire` and `delegate`."""
        super().__init__(state, on_lost)
        self._client = client
        self._link = client.link
        self.lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        if renew and not state.closed:
            self._keeper = asyncio.create_task(
                _keep(self._link, state, self.lost, on_lost), name=f"leasehold-renew-{self.name}"
            )

    async def renew(self) -> LeaseInfo:
        """Renew now. Background renewal does this by itself."""
        await _renew(self._link, self._state)
        return self.info

    async def refresh(self) -> LeaseInfo:
        """Ask the broker how the lease stands."""
        at = read_clocks()
        answer = await self._link.call(methods.GET, service.GetLeaseRequest(name=self.name))
        return self._state.looked(answer.lease, at)

    async def usage(self) -> tuple[Usage, ...]:
        """How every budget that applies stands, asked now."""
        return (await self.refresh()).usage

    async def remaining(self) -> int | None:
        """Micro-USD left under all budgets that apply, asked now; None when none of them caps money."""
        return (await self.refresh()).remaining_micro_usd

    async def watch(self) -> AsyncIterator[LeaseInfo]:
        """The lease at once and at each change; ends after the last one. Survives a broken connection."""
        request = service.WatchLeaseRequest(name=self.name)
        async for answer in self._link.follow(methods.WATCH, lambda: request):
            yield self._state.looked(answer.lease, read_clocks())
            if answer.final:
                break
        _announce_loss(self._state, self.lost, self._on_lost)

    def delegate(
        self,
        *,
        binding_uid: int | None = None,
        binding_certificate_sha256: str | None = None,
        on_lost: OnLost | None = None,
        renew: bool = True,
        **asked: Unpack[Asked],
    ) -> "Issuing":
        """A narrower lease that dies with this one. Arguments as in the blocking twin; await it or `async with` it."""
        return self._client.delegate(
            self.name,
            binding_uid=binding_uid,
            binding_certificate_sha256=binding_certificate_sha256,
            on_lost=on_lost,
            renew=renew,
            **asked,
        )

    async def release(self) -> LeaseInfo:
        """End the lease and its delegated ones; quiet when it has ended already.

        Returns:
            The lease as it ended, with what was spent.

        Raises:
            Unavailable: the broker could not be told; the lease ends by itself at its expiry.
        """
        await self._stop_keeper()
        if not self._state.closed:
            self._state.closed = True
            try:
                answer = await self._link.call(methods.RELEASE, service.ReleaseLeaseRequest(name=self.name))
            except (LeaseEnded, NotFound):
                return self.info
            self._state.looked(answer.lease, read_clocks())
        return self.info

    async def close(self) -> None:
        """Release, and log where that fails instead of raising."""
        try:
            await self.release()
        except LeaseholdError as error:
            _LOG.warning("%s could not be released and ends by itself: %s", self.name, error)

    async def abandon(self) -> None:
        """Stop renewing and leave the lease to its end, or to another process."""
        await self._stop_keeper()
        self._state.closed = True

    async def __aenter__(self) -> Self:
        """The handle."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release, also when the task is being cancelled; in a forked child leave that to the parent."""
        if self._state.here:
            await asyncio.shield(asyncio.ensure_future(self.close()))

    def __del__(self) -> None:
        """Warn when nobody released it, and stop renewing."""
        keeper: asyncio.Task[None] | None = getattr(self, "_keeper", None)
        if keeper is not None and not keeper.done() and not keeper.get_loop().is_closed():
            keeper.get_loop().call_soon_threadsafe(keeper.cancel)
        self._warn_if_open()

    async def _stop_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None and keeper is not asyncio.current_task():
            keeper.cancel()
            await asyncio.wait([keeper])


class Issuing(Awaitable[LeaseHandle]):
    """A lease on its way: await it for the handle, or use it in `async with`."""

    def __init__(self, issue: Callable[[], Awaitable[LeaseHandle]]) -> None:
        """Nothing is sent before it is awaited."""
        self._issue = issue
        self._lease: LeaseHandle | None = None

    def __await__(self) -> Generator[Any, None, LeaseHandle]:
        """The handle."""
        return self._issue().__await__()

    async def __aenter__(self) -> LeaseHandle:
        """The handle, released at the end of the block."""
        self._lease = await self._issue()
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release."""
        if self._lease is not None:
            await self._lease.__aexit__(kind, error, traceback)


class LeaseholdClient:
    """Talks to the sidecar next to this process.

    Arguments as in `leasehold.LeaseholdClient`; the token may also come from an async callable.
    """

    def __init__(
        self,
        target: str | None = None,
        token: TokenSource | None = None,
        *,
        tls: TlsFiles | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        proof: Proof | None = None,
    ) -> None:
        """See the class. Connects at the first call."""
        self.link = AsyncLink(Settings.of(target, tls, timeout_seconds), Identity(token, proof=proof))
        self._leases: weakref.WeakSet[LeaseHandle] = weakref.WeakSet()

    def acquire(
        self,
        *,
        validate_only: bool = False,
        end_with_process: bool = False,
        mode: str = "brokered",
        on_lost: OnLost | None = None,
        renew: bool = True,
        **asked: Unpack[Asked],
    ) -> Issuing:
        """Acquire a lease: `await` it, or `async with` it. Arguments and errors as in the blocking twin."""
        request = acquire_request(
            wanted(**asked), validate_only=validate_only, end_with_process=end_with_process, mode=mode
        )

        async def issue() -> LeaseHandle:
            at = read_clocks()
            return self._held(LeaseState(await self.link.call(methods.ACQUIRE, request), at), on_lost, renew=renew)

        return Issuing(issue)

    def delegate(
        self,
        parent: str,
        *,
        binding_uid: int | None = None,
        binding_certificate_sha256: str | None = None,
        on_lost: OnLost | None = None,
        renew: bool = True,
        **asked: Unpack[Asked],
    ) -> Issuing:
        """A narrower lease under `parent`, a lease's name."""
        request = delegate_request(parent, wanted(**asked), binding_uid, binding_certificate_sha256)

        async def issue() -> LeaseHandle:
            at = read_clocks()
            return self._held(LeaseState(await self.link.call(methods.DELEGATE, request), at), on_lost, renew=renew)

        return Issuing(issue)

    async def get(self, name: str) -> LeaseInfo:
        """One lease of yours, by name. Raises NotFound, also when it is another's."""
        return lease_info((await self.link.call(methods.GET, service.GetLeaseRequest(name=name))).lease)

    async def leases(self, *, include_ended: bool = False) -> AsyncIterator[LeaseInfo]:
        """Your leases, page by page."""
        token = ""
        while True:
            request = service.ListLeasesRequest(page_token=token, include_ended=include_ended)
            page = await self.link.call(methods.LIST, request)
            for lease in page.leases:
                yield lease_info(lease)
            token = page.next_page_token
            if not token:
                return

    async def release(self, name: str) -> LeaseInfo:
        """End a lease of yours, by name; quiet when it has ended already. Raises NotFound."""
        return lease_info((await self.link.call(methods.RELEASE, service.ReleaseLeaseRequest(name=name))).lease)

    async def close(self) -> None:
        """Release the leases that are still held, then close the connection."""
        for lease in list(self._leases):
            async with lease:
                pass
        await self.link.close()

    async def __aenter__(self) -> Self:
        """The client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    def _held(self, state: LeaseState, on_lost: OnLost | None, *, renew: bool) -> LeaseHandle:
        lease = LeaseHandle(self, state, on_lost, renew=renew)
        self._leases.add(lease)
        return lease


async def _renew(link: AsyncLink, state: LeaseState) -> None:
    at = read_clocks()
    request = service.RenewLeaseRequest(name=state.info.name, request_id=new_request_id())
    state.renewed((await link.call(methods.RENEW, request)).lease, at)


def _announce_loss(state: LeaseState, lost: asyncio.Event, on_lost: OnLost | None) -> None:
    error = state.loss_to_announce()
    if error is not None:
        lost.set()
        announce(state, error, on_lost)


async def _keep(link: AsyncLink, state: LeaseState, lost: asyncio.Event, on_lost: OnLost | None) -> None:
    # Knows the state, not the handle: so a forgotten handle is collected, warns, and cancels this task.
    while True:
        pause = state.wait_seconds()
        if pause is None:
            _announce_loss(state, lost, on_lost)
            return
        if pause > 0:
            await asyncio.sleep(pause)
            continue
        try:
            await _renew(link, state)
        except LeaseholdError as error:
            state.renewal_failed(error)
