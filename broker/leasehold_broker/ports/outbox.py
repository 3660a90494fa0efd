"""The port to the events that wait to be shipped, as the link to the collector sees it.

One order over all lives (epochs) of the store: what an earlier life left behind is shipped before anything of this one.
"""

from collections.abc import Sequence
from typing import Protocol

from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.values import value


@value
class PendingRecord:
    """One durable record that is not yet acknowledged.

    Args:
        position: its place in the outbox: from 1, grows with each record, never used twice, not even by a later life.
        record: what to ship.
    """

    position: int
    record: ChainedRecord


class Outbox(Protocol):
    """Durable records in the order of their commits, until the collector has them."""

    async def pending_after(self, position: int, limit: int) -> Sequence[PendingRecord]:
        """The oldest durable records after `position` (0: from the oldest kept), at most `limit`; empty when none is.

        Never returns a record whose transaction is not synced yet.
        """
        ...

    async def acknowledge(self, position: int) -> None:
        """The collector has synced everything up to and including `position`: it may be forgotten.

        Forgetting may become durable later: a record shipped again is recognised by the collector.
        """
        ...

    async def wait_for_more(self, position: int) -> None:
        """Return when a kept record after `position` may exist; at once when one does.

        What is acknowledged counts as gone: with an empty outbox this waits, whatever `position` is.
        """
        ...
