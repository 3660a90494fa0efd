"""The Merkle tree beside the log: its full tiles in a table.

What has not filled a tile yet is not stored twice: it follows from the newest records and from the roots of tiles.
"""

import sqlite3
from collections.abc import Iterable

from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.audit_link import entry_hash
from leasehold_broker.domain.tiles import TILE_HASHES, TILE_HEIGHT, Tile, TileEdge, node_in_tiles

_TILES = "SELECT coalesce(max(number) + 1, 0) FROM tiles WHERE level = ?"
_LEVELS = "SELECT coalesce(max(level) + 1, 0) FROM tiles"
_ROOTS = "SELECT root FROM tiles WHERE level = ? AND number >= ? ORDER BY number LIMIT ?"
_PUT = "INSERT INTO tiles (level, number, root, hashes) VALUES (?,?,?,?)"
_NEWEST = (  # the body is not part of an entry
    "SELECT l.stream, l.epoch, e.sequence, e.previous_digest, x'', e.digest FROM events e "
    "JOIN lives l ON l.id = e.life WHERE e.position > ? ORDER BY e.position LIMIT ?"
)


class TreeReader:
    """Reads nodes through one connection; sees what that connection sees."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Read there."""
        self._connection = connection
        self._tiles: dict[tuple[int, int], bytes] = {}

    def node(self, level: int, index: int) -> bytes:
        """Hash of one perfect node.

        Raises:
            ValueError: the log does not reach that far.
        """
        return node_in_tiles(level, index, self._hashes)

    def _hashes(self, level: int, number: int) -> bytes:
        key = (level, number)
        if key not in self._tiles:
            row = self._connection.execute(
                "SELECT hashes FROM tiles WHERE level = ? AND number = ?", (level, number)
            ).fetchone()
            self._tiles[key] = bytes(row[0]) if row else b"".join(self._unfinished(level, number))
        return self._tiles[key]

    def _unfinished(self, level: int, number: int) -> Iterable[bytes]:
        if level:
            return _roots(self._connection, level, number)
        rows = self._connection.execute(_NEWEST, (number << TILE_HEIGHT, TILE_HASHES))
        return [entry_hash(ChainedRecord(*row)) for row in rows]


def load_edge(connection: sqlite3.Connection) -> TileEdge:
    """The edge, from the file. Records that no tile covers are added; tiles that this fills are stored."""
    levels = connection.execute(_LEVELS).fetchone()[0] + 1
    counts = [connection.execute(_TILES, (level,)).fetchone()[0] for level in range(levels)]
    edge = TileEdge([[], *(_roots(connection, level, counts[level]) for level in range(1, levels))])
    while newest := connection.execute(_NEWEST, (edge.size, TILE_HASHES)).fetchall():
        put_tiles(connection, edge.append(entry_hash(ChainedRecord(*row)) for row in newest))
    return edge


def put_tiles(connection: sqlite3.Connection, tiles: Iterable[Tile]) -> None:
    """Store full tiles."""
    connection.executemany(_PUT, tiles)


def _roots(connection: sqlite3.Connection, level: int, number: int) -> list[bytes]:
    """The nodes of a tile above the entries, as far as they are there."""
    found = connection.execute(_ROOTS, (level - 1, number << TILE_HEIGHT, TILE_HASHES))
    return [bytes(row[0]) for row in found]
