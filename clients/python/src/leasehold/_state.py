"""What both clients share of a lease: token, description, schedule. Owns these; does no I/O, shows no token."""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, NoReturn, Protocol, final

from leasehold._messages import LeaseInfo, lease_info
from leasehold._renewal import Reading, Renewal, read_clocks
from leasehold.errors import InvalidRequest, LeaseEnded, LeaseholdError
from leasehold.v1 import types_pb2 as types

_LOG = logging.getLogger("leasehold")

OnLost = Callable[[LeaseInfo, LeaseholdError], object]
"""Called once, from the renewal's thread or task, when a lease has ended without its holder's doing."""


@final
class LeaseToken:
    """The secret that an SDK sends as its API key. No str, repr, format, pickle or exception shows it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Hold `value`."""
        self._value = value

    def reveal(self) -> str:
        """The plain token: for the place where an SDK takes its key, and nowhere else."""
        return self._value

    def __repr__(self) -> str:
        """Says only that it is one."""
        return "LeaseToken(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        """Says only that it is one."""
        return "LeaseToken(***)"

    def __reduce__(self) -> NoReturn:
        """Refuse to pickle."""
        message = "a LeaseToken is not serialisable; delegate a lease to the other process instead"
        raise TypeError(message)


class Endpoint(Protocol):
    """Where an SDK reaches one provider through the sidecar."""

    @property
    def provider(self) -> str:
        """Name of the provider."""
        ...

    @property
    def base_url(self) -> str:
        """For the SDK's base_url."""
        ...

    @property
    def unix_socket(self) -> str:
        """Path of the egress's Unix socket; "" when it has none."""
        ...


class _Issued(Protocol):
    @property
    def lease(self) -> types.Lease: ...
    @property
    def lease_token(self) -> str: ...
    @property
    def endpoints(self) -> Any: ...


class LeaseState:
    """What is known of a lease: description, token, endpoints, schedule. Safe for several threads; no I/O."""

    def __init__(self, issued: _Issued, at: Reading) -> None:
        """Read the broker's answer; `at`: when the request was sent."""
        self._lock = threading.Lock()
        self._token = LeaseToken(issued.lease_token) if issued.lease_token else None
        self.endpoints: tuple[Endpoint, ...] = tuple(issued.endpoints)
        self.info = lease_info(issued.lease)
        self._renewal = Renewal(self.info.ttl_seconds, self.info.renew_after_seconds, at)
        self.closed = self._token is None
        self._announced = False
        self._pid = os.getpid()

    @property
    def token(self) -> LeaseToken:
        """The token.

        Raises:
            InvalidRequest: there is none: the lease was only validated.
        """
        if self._token is None:
            raise InvalidRequest("this lease was only validated, so it has no token; acquire without validate_only")
        return self._token

    @property
    def here(self) -> bool:
        """False in a child process after a fork: the lease is the parent's to renew and to release."""
        return self._pid == os.getpid()

    def endpoint(self, provider: str | None) -> Endpoint:
        """Where the provider is reached; None: the only one.

        Raises:
            InvalidRequest: the lease does not reach it, or reaches several and none was named.
        """
        names = ", ".join(each.provider for each in self.endpoints) or "none"
        if provider is None:
            if len(self.endpoints) == 1:
                return self.endpoints[0]
            raise InvalidRequest.of_field("provider", f"is needed: this lease reaches {names}")
        for each in self.endpoints:
            if each.provider == provider:
                return each
        raise InvalidRequest.of_field("provider", f"is {provider!r}; this lease reaches {names}")

    def wait_seconds(self) -> float | None:
        """As `Renewal.wait_seconds`."""
        with self._lock:
            return self._renewal.wait_seconds(read_clocks())

    def seconds_left(self) -> float:
        """Until the lease ends by itself."""
        with self._lock:
            return self._renewal.seconds_left(read_clocks())

    @property
    def renewal_error(self) -> LeaseholdError | None:
        """Why the last renewal failed; None when it did not."""
        return self._renewal.error

    @property
    def lost(self) -> LeaseholdError | None:
        """Why the lease has ended without its holder's doing; None while it has not, as far as is known."""
        return self._renewal.lost

    def renewed(self, lease: types.Lease, at: Reading) -> None:
        """A renewal was answered."""
        with self._lock:
            self.info = lease_info(lease)
            self._renewal.succeeded(self.info.ttl_seconds, self.info.renew_after_seconds, at)

    def looked(self, lease: types.Lease, at: Reading) -> LeaseInfo:
        """A read was answered."""
        with self._lock:
            self.info = info = lease_info(lease)
            self._renewal.looked(info.ttl_seconds, at)
            if info.ended:
                self._renewal.ended(LeaseEnded(f"{info.name} is {info.state}.", reason=info.reason or "LEASE_EXPIRED"))
            return info

    def renewal_failed(self, error: LeaseholdError) -> None:
        """A renewal was refused or unanswered."""
        with self._lock:
            self._renewal.failed(error, read_clocks())
            lost = self._renewal.lost is not None
        if not lost and not self.closed:
            _LOG.warning(
                "%s could not be renewed and is still good for %.0f s: %s", self.info.name, self.seconds_left(), error
            )

    def loss_to_announce(self) -> LeaseholdError | None:
        """The loss, once; None when there is none, it was announced, or the holder released the lease itself."""
        with self._lock:
            if self._announced or self.closed or self._renewal.lost is None:
                return None
            self._announced = True
            return self._renewal.lost


def announce(state: LeaseState, error: LeaseholdError, on_lost: OnLost | None) -> None:
    """Say that a lease is lost: to the log, and to the holder's callback."""
    _LOG.warning("%s is lost: %s", state.info.name, error)
    if on_lost is None:
        return
    try:
        on_lost(state.info, error)
    except Exception:  # noqa: BLE001 - the holder's own code: nothing it raises may end the renewal unseen
        _LOG.exception("on_lost of %s raised", state.info.name)
