"""The ports to a receiver of our security events, and to what signs them."""

from typing import Protocol

from leasehold_broker.domain.outgoing_signals import Claims


class SignalNotSentError(Exception):
    """The receiver did not take it; sent again later. The message says why, without a secret."""


class SignalNotTakenError(Exception):
    """The receiver says that this token is wrong: sending it again is useless. The message has its code."""


class SignalReceiver(Protocol):
    """Takes tokens, one after the other, each at least once."""

    async def push(self, token: str) -> None:
        """Returns once it is taken.

        Raises:
            SignalNotSentError: not taken, or not known to be.
            SignalNotTakenError: never.
        """
        ...


class SignalSigner(Protocol):
    """Signs tokens."""

    def sign(self, claims: Claims) -> str:
        """The security event token with these claims."""
        ...
