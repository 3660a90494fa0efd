"""The port to a store of keys elsewhere: one read at a time, and a typed state when it does not answer as it should."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from leasehold_broker.domain.secret import Secret


class SourceState(StrEnum):
    """How a store stands, as the last question to it showed."""

    SERVING = "serving"
    SEALED = "sealed"
    STANDBY = "standby"
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    FAILING = "failing"
    LOGIN_REFUSED = "login_refused"
    DENIED = "denied"
    MISSING = "missing"
    MALFORMED = "malformed"
    DISABLED = "disabled"
    CONFLICT = "conflict"


FINAL = frozenset({SourceState.DENIED, SourceState.MISSING, SourceState.DISABLED})
"""The store answered, and its answer is no: a key that was read before is dropped at once. All else is an outage, in
which the last good value serves until it is too old."""
WHOLE_STORE = frozenset(
    {
        SourceState.SEALED,
        SourceState.STANDBY,
        SourceState.RATE_LIMITED,
        SourceState.UNREACHABLE,
        SourceState.FAILING,
        SourceState.LOGIN_REFUSED,
    }
)
"""Of no use to ask for the next key: it would end the same."""


class SourceFault(Exception):  # noqa: N818 - the store's fault, in the house's word
    """A store did not give what was asked. The message says what to do, and never a secret.

    Args:
        state: typed reason.
        message: one sentence.
        retry_after_seconds: when the store said so.
    """

    def __init__(self, state: SourceState, message: str, retry_after_seconds: float | None = None) -> None:
        """Say why."""
        super().__init__(message)
        self.state = state
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class SourcedKey:
    """One key as a store holds it now.

    Args:
        value: the key.
        id: of this version, as the store names it; another id is another version.
        created_wall_ms: when this version was stored, by the store's clock.
        number: of this version, where the store counts them: it never falls; None where versions have no order.
    """

    value: Secret
    id: str
    created_wall_ms: int
    number: int | None = None


class KeySource(Protocol):
    """A store of keys, reached over a network."""

    async def read(self, name: str) -> SourcedKey:
        """The current version of one key.

        Raises:
            SourceFault: it could not be read; `state` says why.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections and threads."""
        ...
