"""A lease in the hands of its holder. Owns background renewal and release; refuses to outlive its holder.

`LeaseBase` is what both clients share; `LeaseHandle` is the blocking one; its twin is in `leasehold.aio`.
"""

import logging
import threading
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from leasehold import _methods as methods
from leasehold._channel import Link
from leasehold._messages import Asked, LeaseInfo, Usage, new_request_id
from leasehold._renewal import read_clocks
from leasehold._state import Endpoint, LeaseState, LeaseToken, OnLost, announce
from leasehold.errors import LeaseEnded, LeaseholdError, NotFound
from leasehold.v1 import lease_service_pb2 as service

if TYPE_CHECKING:
    from leasehold.client import LeaseholdClient

__all__ = ["Endpoint", "LeaseBase", "LeaseHandle", "LeaseToken", "OnLost"]

_LOG = logging.getLogger("leasehold")


class LeaseBase:
    """What is the same on both handles: everything that needs no broker."""

    def __init__(self, state: LeaseState, on_lost: OnLost | None) -> None:
        """Hold a lease."""
        self._state = state
        self._on_lost = on_lost

    @property
    def name(self) -> str:
        """The lease's name, "leases/<id>": safe to log and to give to a responder."""
        return self._state.info.name

    @property
    def info(self) -> LeaseInfo:
        """The lease as last described."""
        return self._state.info

    @property
    def token(self) -> LeaseToken:
        """The secret for the SDK; `.reveal()` gives it as text. It stays the same when the lease is renewed."""
        return self._state.token

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where the providers are reached."""
        return self._state.endpoints

    def endpoint(self, provider: str | None = None) -> Endpoint:
        """Where one provider is reached; None: the only one. Raises InvalidRequest when the lease does not reach it."""
        return self._state.endpoint(provider)

    @property
    def seconds_left(self) -> float:
        """Until the lease ends unless it is renewed; counted on a monotonic clock."""
        return self._state.seconds_left()

    @property
    def lost_because(self) -> LeaseholdError | None:
        """Why the lease was lost; None while it was not."""
        return self._state.lost

    @property
    def renewal_error(self) -> LeaseholdError | None:
        """Why the last renewal failed; None when it did not. The lease stays good until its end."""
        return self._state.renewal_error

    def __repr__(self) -> str:
        """Name and state."""
        return f"<{type(self).__name__} {self.name} {self.info.state}>"

    def _warn_if_open(self) -> None:
        state: LeaseState | None = getattr(self, "_state", None)
        if state is not None and state.here and not state.closed and state.lost is None:
            warnings.warn(
                f"{self!r} was never released; use it in a with block", ResourceWarning, source=self, stacklevel=3
            )


class LeaseHandle(LeaseBase):
    """A lease, renewed in the background until it is released. Use it as a context manager.

    Attributes:
        lost: set when the lease has ended without its holder's doing. A revocation is noticed at the next renewal, or
            at once by whoever iterates `watch`.
    """

    def __init__(self, client: "LeaseholdClient", state: LeaseState, on_lost: OnLost | None, *, renew: bool) -> None:
        """Made by `LeaseholdClient.acquire` and `delegate`."""
        super().__init__(state, on_lost)
        self._client = client
        self._link = client.link
        self._stop = threading.Event()
        self.lost = threading.Event()
        if renew and not state.closed:
            keeper = threading.Thread(
                target=_keep,
                args=(self._link, state, self._stop, self.lost, on_lost),
                name=f"leasehold-renew-{self.name}",
                daemon=True,
            )
            keeper.start()

    def renew(self) -> LeaseInfo:
        """Renew now. Background renewal does this by itself.

        Raises:
            LeaseEnded, PreconditionFailed (MAX_TTL_REACHED), LeaseholdError: as the broker refused.
        """
        _renew(self._link, self._state)
        return self.info

    def refresh(self) -> LeaseInfo:
        """Ask the broker how the lease stands."""
        at = read_clocks()
        answer = self._link.call(methods.GET, service.GetLeaseRequest(name=self.name))
        return self._state.looked(answer.lease, at)

    def usage(self) -> tuple[Usage, ...]:
        """How every budget that applies stands, asked now."""
        return self.refresh().usage

    def remaining(self) -> int | None:
        """Micro-USD left under all budgets that apply, asked now; None when none of them caps money."""
        return self.refresh().remaining_micro_usd

    def watch(self) -> Iterator[LeaseInfo]:
        """The lease at once and at each change; ends after the last one. Survives a broken connection."""
        request = service.WatchLeaseRequest(name=self.name)
        for answer in self._link.follow(methods.WATCH, lambda: request):
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
    ) -> "LeaseHandle":
        """A narrower lease that dies with this one; its budget is carved out of this one's.

        Args:
            binding_uid: the user who may use it; without a binding it is this process's own peer.
            binding_certificate_sha256: the client certificate that may use it.
            on_lost: as in `LeaseholdClient.acquire`.
            renew: as in `LeaseholdClient.acquire`.
            **asked: scope, caps, ttl, purpose, labels as in `LeaseholdClient.acquire`; no scope: this lease's.

        Raises:
            LeaseholdError: as the broker refused.
        """
        return self._client.delegate(
            self.name,
            binding_uid=binding_uid,
            binding_certificate_sha256=binding_certificate_sha256,
            on_lost=on_lost,
            renew=renew,
            **asked,
        )

    def release(self) -> LeaseInfo:
        """End the lease and its delegated ones; quiet when it has ended already. Renewal stops first.

        Returns:
            The lease as it ended, with what was spent.

        Raises:
            Unavailable: the broker could not be told; the lease ends by itself at its expiry.
        """
        self._stop.set()
        if not self._state.closed:
            self._state.closed = True
            try:
                answer = self._link.call(methods.RELEASE, service.ReleaseLeaseRequest(name=self.name))
            except (LeaseEnded, NotFound):
                return self.info
            self._state.looked(answer.lease, read_clocks())
        return self.info

    def close(self) -> None:
        """Release, and log where that fails instead of raising."""
        try:
            self.release()
        except LeaseholdError as error:
            _LOG.warning("%s could not be released and ends by itself: %s", self.name, error)

    def abandon(self) -> None:
        """Stop renewing and leave the lease to its end, or to another process."""
        self._stop.set()
        self._state.closed = True

    def __enter__(self) -> Self:
        """The handle."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release; in a forked child leave that to the parent."""
        if self._state.here:
            self.close()

    def __del__(self) -> None:
        """Warn when nobody released it, and stop renewing."""
        stop: threading.Event | None = getattr(self, "_stop", None)
        if stop is not None:
            stop.set()
            self._warn_if_open()


def _renew(link: Link, state: LeaseState) -> None:
    at = read_clocks()
    request = service.RenewLeaseRequest(name=state.info.name, request_id=new_request_id())
    state.renewed(link.call(methods.RENEW, request).lease, at)


def _announce_loss(state: LeaseState, lost: threading.Event, on_lost: OnLost | None) -> None:
    error = state.loss_to_announce()
    if error is not None:
        lost.set()
        announce(state, error, on_lost)


def _keep(link: Link, state: LeaseState, stop: threading.Event, lost: threading.Event, on_lost: OnLost | None) -> None:
    # Knows the state, not the handle: so a forgotten handle is collected, warns, and stops this thread.
    while not stop.is_set():
        pause = state.wait_seconds()
        if pause is None:
            _announce_loss(state, lost, on_lost)
            return
        if pause > 0:
            stop.wait(pause)
            continue
        try:
            _renew(link, state)
        except LeaseholdError as error:
            state.renewal_failed(error)
