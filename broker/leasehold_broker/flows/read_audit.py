"""Read the audit log: a page, a tail, the heads. Changes nothing; that somebody reads is recorded at the door."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from leasehold_broker.domain.audit_query import EventFilter, StoredRecord
from leasehold_broker.domain.page_token import page_size_of, read_token, write_token
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.domain.stream_head import StreamHead
from leasehold_broker.ports.event_store import EventStore

TAIL_PAGE_RECORDS = 200
FILTER_LENGTH_MAX = 512
_LISTING = "events"


class ReadAudit:
    """Answers questions about the log."""

    def __init__(self, store: EventStore) -> None:
        """Read this log."""
        self._store = store

    async def page(self, wanted: EventFilter, page_size: int, page_token: str) -> tuple[Sequence[StoredRecord], str]:
        """One page in order of position, and the token of the next ("" at the end).

        A listing ends where the log ended when its first page was asked for, so that reading, which is itself
        recorded, comes to an end.

        Raises:
            Refusal: FIELD_INVALID, STORE_UNAVAILABLE.
        """
        for name in ("stream", "type", "lease", "subject", "key", "outcome"):
            if len(getattr(wanted, name)) > FILTER_LENGTH_MAX:
                raise field_invalid(name, f"must be at most {FILTER_LENGTH_MAX} characters")
        size = page_size_of(page_size)
        question = repr(wanted)
        after, until = 0, self._store.last_position()
        if page_token:
            numbers = read_token(_LISTING, question, page_token)
            if len(numbers) != 2:
                raise field_invalid("page_token", "is not a token of this listing; start again without one")
            after, until = numbers
        if until == 0:
            return (), ""
        bounded = replace(wanted, until_position=until)
        found = await self._store.page(bounded, after, size)
        if not found:
            return (), ""
        last = found[-1].position
        # A page may be short because its records are large: only the log knows whether more match.
        more = last < until and await self._store.page(bounded, last, 1)
        return found, write_token(_LISTING, question, last, until) if more else ""

    async def watch(self, after_position: int | None) -> AsyncIterator[Sequence[StoredRecord]]:
        """Everything after a position, in order, as it comes; from now on when it is None. Never ends by itself.

        Raises:
            Refusal: FIELD_INVALID, STORE_UNAVAILABLE.
        """
        if after_position is not None and after_position < 0:
            raise field_invalid("after_position", f"must not be negative, was {after_position}")
        position = self._store.last_position() if after_position is None else after_position
        while True:
            await self._store.wait_for_more(position)
            records = await self._store.page(EventFilter(), position, TAIL_PAGE_RECORDS)
            if records:
                yield records
                position = records[-1].position

    async def heads(self) -> Sequence[StreamHead]:
        """The last record of every life of every stream."""
        return await self._store.heads()
