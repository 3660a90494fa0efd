"""What the spool remembers of records that are gone from it: where the chain of the life before ended."""

import sqlite3

from leasehold_broker.domain.audit_chain import ChainEnd

_NEWEST = "SELECT epoch, sequence, digest FROM outbox WHERE position <= ? ORDER BY position DESC LIMIT 1"
_TRIMMED = "SELECT value FROM meta WHERE name = 'trimmed'"
_PUT_TRIMMED = "INSERT OR REPLACE INTO meta (name, value) VALUES ('trimmed', ?)"
EVERYTHING = 2**63 - 1


def last_record(connection: sqlite3.Connection) -> ChainEnd | None:
    """The newest record that this store ever held; None in a new store."""
    row = connection.execute(_NEWEST, (EVERYTHING,)).fetchone()
    if row is not None:
        return ChainEnd(row[0], row[1], bytes(row[2]))
    row = connection.execute(_TRIMMED).fetchone()
    if row is None:
        return None
    epoch, sequence, digest = bytes(row[0]).decode().split(" ")
    return ChainEnd(epoch, int(sequence), bytes.fromhex(digest))


def trim(connection: sqlite3.Connection, position: int) -> None:
    """Forget the records up to `position`, all but the name of the last one."""
    row = connection.execute(_NEWEST, (position,)).fetchone()
    if row is None:
        return
    connection.execute(_PUT_TRIMMED, (f"{row[0]} {row[1]} {bytes(row[2]).hex()}".encode(),))
    connection.execute("DELETE FROM outbox WHERE position <= ?", (position,))
