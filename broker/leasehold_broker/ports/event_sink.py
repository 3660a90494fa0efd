"""The port to a place outside that gets a copy of the log: a SIEM, a webhook, a file."""

from collections.abc import Sequence
from typing import Protocol

from leasehold_broker.domain.audit_query import StoredRecord


class SinkFailedError(Exception):
    """A batch was not taken; the message says why, without a secret. It is sent again."""


class EventSink(Protocol):
    """Takes batches in the order of the log, each at least once."""

    async def deliver(self, records: Sequence[StoredRecord]) -> None:
        """Returns once the batch is taken, as far as the place can say.

        Args:
            records: one or more, each with a body.

        Raises:
            SinkFailedError: not taken, or not known to be.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
