"""The Merkle tree beside the log. Owns the tiles' table: full tiles of 256 hashes, as C2SP's tlog-tiles cuts them.

Tile (level, number) holds the perfect nodes (8 * level, 256 * number ...), and its root is a node of the level above.
What has not filled a tile yet is not stored twice: it follows from the newest records and from the roots of tiles.
"""

import sqlite3
from collections.abc import Iterable

from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.audit_link import entry_hash
from leasehold_broker.domain.checkpoint import TreeHead
from leasehold_broker.domain.merkle import HASH_BYTES, Frontier, node_hash, peaks

TILE_HEIGHT = 8
TILE_HASHES = 1 << TILE_HEIGHT

_TILES = "SELECT coalesce(max(number) + 1, 0) FROM tiles WHERE level = ?"
_LEVELS = "SELECT coalesce(max(level) + 1, 0) FROM tiles"
_ROOTS = "SELECT root FROM tiles WHERE level = ? AND number >= ? ORDER BY number LIMIT ?"
_PUT = "INSERT INTO tiles (level, number, root, hashes) VALUES (?,?,?,?)"
_NEWEST = (  # the body is not part of an entry
    "SELECT l.stream, l.epoch, e.sequence, e.previous_digest, x'', e.digest FROM events e "
    "JOIN lives l ON l.id = e.life WHERE e.position > ? ORDER BY e.position LIMIT ?"
)
Row = tuple[int, int, bytes, bytes]


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
        tile_level, within = divmod(level, TILE_HEIGHT)
        count = 1 << within
        first = index << within
        hashes = self._hashes(tile_level, first // TILE_HASHES)
        start = first % TILE_HASHES
        found = [hashes[at : at + HASH_BYTES] for at in range(start * HASH_BYTES, len(hashes), HASH_BYTES)][:count]
        if len(found) != count:
            message = f"the log does not reach node {index} of level {level}"
            raise ValueError(message)
        return perfect_root(found)

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
            return [
                bytes(row[0])
                for row in self._connection.execute(_ROOTS, (level - 1, number << TILE_HEIGHT, TILE_HASHES))
            ]
        rows = self._connection.execute(_NEWEST, (number << TILE_HEIGHT, TILE_HASHES))
        return [entry_hash(ChainedRecord(*row)) for row in rows]


class TreeEdge:
    """What the writer knows of the tree: its edge, and which tiles became full. Changes with the writer's memory."""

    def __init__(self) -> None:
        """An empty tree."""
        self._frontier = Frontier()
        self._rows: list[list[bytes]] = [[]]
        self._counts = [0]

    @property
    def size(self) -> int:
        """Entries."""
        return self._frontier.size

    def head(self) -> TreeHead:
        """Size and root now."""
        return TreeHead(self._frontier.size, self._frontier.root())

    def load(self, connection: sqlite3.Connection) -> None:
        """Take the edge from the file. Records that no tile covers are added; tiles that this fills are stored."""
        levels = connection.execute(_LEVELS).fetchone()[0] + 1
        self._counts = [connection.execute(_TILES, (level,)).fetchone()[0] for level in range(levels)]
        self._rows = [[]]
        for level in range(1, levels):
            rows = connection.execute(_ROOTS, (level - 1, self._counts[level] << TILE_HEIGHT, TILE_HASHES))
            self._rows.append([bytes(row[0]) for row in rows])
        size = self._counts[0] << TILE_HEIGHT
        reader = TreeReader(connection)
        self._frontier = Frontier(size, [reader.node(*peak) for peak in peaks(size)])
        while newest := connection.execute(_NEWEST, (self.size, TILE_HASHES)).fetchall():
            put_tiles(connection, self.append(entry_hash(ChainedRecord(*row)) for row in newest))

    def append(self, leaves: Iterable[bytes]) -> list[Row]:
        """Add entries; gives the tiles that are full now, to be stored in the same transaction."""
        full: list[Row] = []
        grow = self._frontier.append
        for leaf in leaves:
            grow(leaf)
            level, entry = 0, leaf
            while True:
                row = self._rows[level]
                row.append(entry)
                if len(row) < TILE_HASHES:
                    break
                entry = perfect_root(row)
                full.append((level, self._counts[level], entry, b"".join(row)))
                row.clear()
                self._counts[level] += 1
                level += 1
                if level == len(self._rows):
                    self._rows.append([])
                    self._counts.append(0)
        return full


def put_tiles(connection: sqlite3.Connection, tiles: Iterable[Row]) -> None:
    """Store full tiles."""
    connection.executemany(_PUT, tiles)


def perfect_root(hashes: list[bytes]) -> bytes:
    """Root over a power of two of nodes."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]
