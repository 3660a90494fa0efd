"""Whose turn at the log is next, of all replicas. Owns the lines that turns wait in.

The lock of a row goes to whoever asks in the right moment; an advisory lock is handed over in the order of asking. So
turns wait for the head at one of those. All but revocations wait at another one first, so of all replicas one such turn
at most is at the head or waits for it. A revocation waits for that one and for other revocations, however many replicas
take in however much. Who may write is not decided here: that is the lock of the head's row.
"""

from enum import Enum
from typing import Any

from leasehold_broker.adapters.postgres_collector.schema import HEAD_LOCK, ORDINARY_LOCK

_WAIT = "SELECT pg_advisory_xact_lock($1, hashtext(current_schema()))"


class Line(Enum):
    """Where a turn waits: the locks that it takes, in their order, until its transaction ends."""

    ORDINARY = (ORDINARY_LOCK, HEAD_LOCK)
    REVOCATIONS = (HEAD_LOCK,)


async def wait_in(line: Line, connection: Any) -> None:
    """Return when it is the turn of this connection, in a transaction."""
    for lock in line.value:
        await connection.execute(_WAIT, lock)
