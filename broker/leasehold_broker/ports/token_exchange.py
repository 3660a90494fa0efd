"""The port to token endpoints: a workload token goes in, a short-lived token of a provider comes out."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from leasehold_broker.domain.secret import Secret

ASSERTION_BYTES_MAX = 16 * 1024
ANSWER_BYTES_MAX = 256 * 1024


class ExchangeState(StrEnum):
    """Why no token came."""

    NO_ASSERTION = "no_assertion"
    REFUSED = "refused"
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    FAILING = "failing"
    MALFORMED = "malformed"


class ExchangeFault(Exception):  # noqa: N818 - as SourceFault
    """No token came. The message says what to do, and never a secret.

    Args:
        state: typed reason.
        message: one sentence.
        retry_after_seconds: when the endpoint said so.
    """

    def __init__(self, state: ExchangeState, message: str, retry_after_seconds: float | None = None) -> None:
        """Say why."""
        super().__init__(message)
        self.state = state
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class MintRequest:
    """What a token shall be.

    Args:
        models: it shall reach no others, where the provider can narrow it; empty: those of the rule.
        life_seconds_max: it shall end by then, where the provider can be told; None: as the rule says.
        wall_ms: now, for signatures that carry a time.
    """

    models: tuple[str, ...]
    life_seconds_max: int | None
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Minted:
    """A token and how long it lives, in whole seconds from when it was asked for."""

    token: Secret
    life_seconds: int


@dataclass(frozen=True, slots=True)
class TokenAsk:
    """One request to a token endpoint.

    Args:
        origin: scheme and host.
        path: with query.
        headers: all but `bearer`.
        body: holds the assertion: never logged.
        bearer: sent as authorization; None for none.
    """

    origin: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    bearer: Secret | None = None

    def __repr__(self) -> str:
        """Where to, and no more."""
        return f"TokenAsk({self.origin}{self.path})"


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What came back; `body` may hold a token: never logged."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """The status, and no more."""
        return f"TokenAnswer({self.status})"


Exchanging = Generator[TokenAsk, TokenAnswer, Minted]
"""Yields what to ask, is sent what came, returns the token. Raises ExchangeFault."""


class Exchange(Protocol):
    """One federation rule at a provider. Pure: bytes and values in, values out."""

    @property
    def origins(self) -> tuple[str, ...]:
        """Where it asks."""
        ...

    @property
    def narrows(self) -> bool:
        """True where a token can be held to the models of one lease."""
        ...

    @property
    def revocation(self) -> str:
        """One sentence: what can be revoked, and what lives on until when."""
        ...

    def exchange(self, assertion: Secret, wanted: MintRequest) -> Exchanging:
        """Exchange `assertion`, the workload token."""
        ...


class TokenEndpoints(Protocol):
    """Carries what an exchange asks."""

    async def carry(self, exchanging: Exchanging) -> Minted:
        """Ask until a token is there.

        Raises:
            ExchangeFault: none came.
        """
        ...


class Assertions(Protocol):
    """Where workload tokens lie."""

    def read(self, path: str) -> Secret:
        """The workload token that lies there now.

        Raises:
            ExchangeFault: NO_ASSERTION.
        """
        ...
