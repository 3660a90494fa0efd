"""The Merkle tree cut into tiles of 256 hashes, as C2SP's tlog-tiles cuts it. Owns the cut; stores nothing.

Tile (level, number) holds the perfect nodes (8 * level, 256 * number ...), and its root is a node of the level above.
What has not filled a tile yet is the tree's edge: one row of at most 255 hashes on each level.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

from leasehold_broker.domain.checkpoint import TreeHead
from leasehold_broker.domain.merkle import HASH_BYTES, fold, node_hash

TILE_HEIGHT = 8
TILE_HASHES = 1 << TILE_HEIGHT

Tile = tuple[int, int, bytes, bytes]
"""Level, number, root, and its 256 hashes one after the other."""


class TileEdge:
    """The edge of a growing tree."""

    def __init__(self, rows: Sequence[Sequence[bytes]] = ()) -> None:
        """Go on from an edge: for each level, from the entries up, the hashes that fill no tile yet."""
        self._rows = [list(row) for row in rows] or [[]]
        self.size = sum(len(row) << (TILE_HEIGHT * level) for level, row in enumerate(self._rows))
        self._counts = [self.size >> (TILE_HEIGHT * (level + 1)) for level in range(len(self._rows))]
        self._peaks = [peak for row in reversed(self._rows) for peak in _peaks(row)]

    def head(self) -> TreeHead:
        """Size and root now."""
        return TreeHead(self.size, fold(self._peaks))

    def peaks(self) -> list[bytes]:
        """Roots of the perfect subtrees that the tree is made of now, largest first."""
        return list(self._peaks)

    def rows(self) -> list[tuple[int, int, bytes]]:
        """The edge: level, number of the tile that is being filled, and its hashes so far, one after the other."""
        return [(level, self._counts[level], b"".join(row)) for level, row in enumerate(self._rows)]

    def append(self, leaves: Iterable[bytes]) -> list[Tile]:
        """Add entries; gives the tiles that are full now, to be stored in the same transaction.

        Each node is hashed once: where eight levels have merged, the node is the root of a tile that is full now.
        """
        full: list[Tile] = []
        sha256, peaks, size, first = hashlib.sha256, self._peaks, self.size, self._rows[0]
        for leaf in leaves:
            first.append(leaf)
            node, merging, level = leaf, size, 0
            while merging & 1:
                node = sha256(b"\1" + peaks.pop() + node).digest()  # node_hash; a call costs as much as the hash
                merging >>= 1
                level += 1
                if not level % TILE_HEIGHT:
                    full.append(self._filled(level // TILE_HEIGHT - 1, node))
            peaks.append(node)
            size += 1
        self.size = size
        return full

    def _filled(self, level: int, root: bytes) -> Tile:
        row = self._rows[level]
        tile = (level, self._counts[level], root, b"".join(row))
        row.clear()
        self._counts[level] += 1
        if level + 1 == len(self._rows):
            self._rows.append([])
            self._counts.append(0)
        self._rows[level + 1].append(root)
        return tile


def node_in_tiles(level: int, index: int, hashes_of: Callable[[int, int], bytes]) -> bytes:
    """Hash of one perfect node.

    Args:
        level: of the node.
        index: of the node on its level.
        hashes_of: the hashes of tile (level, number), as many as there are.

    Raises:
        ValueError: the log does not reach that far.
    """
    tile_level, within = divmod(level, TILE_HEIGHT)
    count = 1 << within
    first = index << within
    found = split(hashes_of(tile_level, first // TILE_HASHES))[first % TILE_HASHES :][:count]
    if len(found) != count:
        message = f"the log does not reach node {index} of level {level}"
        raise ValueError(message)
    return perfect_root(found)


def split(hashes: bytes) -> list[bytes]:
    """One after the other to a list."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def perfect_root(hashes: list[bytes]) -> bytes:
    """Root over a power of two of nodes."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]


def _peaks(row: Sequence[bytes]) -> Iterable[bytes]:
    """Roots of the largest perfect subtrees of a row, from the left."""
    start = 0
    for bit in reversed(range(TILE_HEIGHT)):
        count = len(row) & (1 << bit)
        if count:
            yield perfect_root(list(row[start : start + count]))
            start += count
