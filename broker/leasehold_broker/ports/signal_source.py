"""The port to a transmitter whose security events are fetched (RFC 8936)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.security_events import SetRefusedError


class SignalsNotFetchedError(Exception):
    """Nothing was fetched; the message says why, without a secret."""


@dataclass(frozen=True, slots=True)
class FetchedSignals:
    """Unverified tokens by `jti` as the transmitter says, and whether there are more at once."""

    tokens: Mapping[str, str]
    more: bool


class SignalSource(Protocol):
    """Gives what it has, again and again until it is acknowledged."""

    async def poll(self, taken: Sequence[str], refused: Mapping[str, SetRefusedError]) -> FetchedSignals:
        """Acknowledge what was taken, tell what was refused, and fetch what is next.

        Raises:
            SignalsNotFetchedError: nothing is known to be acknowledged.
        """
        ...
