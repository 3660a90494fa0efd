"""The port to a place that tells humans: a chat, a pager, a webhook."""

from typing import Protocol

from leasehold_broker.domain.alerts import Alert


class AlertNotSentError(Exception):
    """The place did not take it; sent again later. The message says why, without a secret.

    Args:
        retry_after_seconds: as the place asked; None when it did not.
    """

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        """Say so."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class AlertRejectedError(Exception):
    """The place will never take this alert; sending it again is useless. The message says why, without a secret."""


class AlertEndpoint(Protocol):
    """Takes alerts, one after the other, each at least once."""

    async def send(self, alert: Alert) -> None:
        """Returns once it is taken.

        Raises:
            AlertNotSentError: not taken, or not known to be.
            AlertRejectedError: never.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
