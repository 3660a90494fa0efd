"""No memory, as SQLite tells it, in the middle of a sidecar's commit: everybody is told, and nothing is told twice."""

import asyncio
from typing import Any

import pytest
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.adapters.sqlite_state import SqliteStateStore, StoreLimits
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal


class NoMemory:
    """A connection that has no memory at some statements."""

    def __init__(self, connection: Any, *statements: str) -> None:
        """These fail."""
        self._connection, self._statements = connection, statements

    def execute(self, sql: str, *arguments: Any) -> Any:
        """As the connection does."""
        if sql in self._statements:
            raise MemoryError
        return self._connection.execute(sql, *arguments)

    def __getattr__(self, name: str) -> Any:
        """As the connection's."""
        return getattr(self._connection, name)


def event(number: int) -> Event:
    """One event."""
    return Event(EventType.CALL_ADMITTED, number, Outcome.ALLOWED)


@pytest.mark.parametrize("statements", [("COMMIT",), ("BEGIN IMMEDIATE",), ("COMMIT", "ROLLBACK")])
async def test_a1_a_commit_without_memory_is_refused_to_all_who_wait(tmp_path, statements):
    """Whatever fails with it: nobody waits for ever, the store is broken, and the file holds none of it."""
    store = SqliteStateStore(tmp_path / "state", "s", ManualClock(), StoreLimits())
    await store.commit([event(1)])
    whole = store._connection
    store._connection = NoMemory(whole, *statements)
    async with asyncio.timeout(120):
        ends = await asyncio.gather(*(store.commit([event(n)]) for n in (2, 3)), return_exceptions=True)
        assert [end.reason for end in ends] == [Reason.STORE_UNAVAILABLE] * 2
        assert store.broken
        store._connection = whole
        with pytest.raises(Refusal, match="STORE_UNAVAILABLE"):
            await store.commit([event(4)])
        await store.close()
    store = SqliteStateStore(tmp_path / "state", "s", ManualClock(), StoreLimits())
    assert len(await store.pending_after(0, 10)) == 1
    await store.close()
