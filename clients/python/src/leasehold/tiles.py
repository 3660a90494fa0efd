"""A copy of the log as a folder: C2SP tlog-tiles, and the events' bodies beside them. Owns paths and framing.

    checkpoint                      the signed note
    tile/L/NNN  tile/L/NNN.p/W      hashes: 256 to a full tile, W to the last one of a level
    tile/entries/NNN[.p/W]          entries, each with its length in two bytes (big-endian): a record without its body
    bodies/NNN[.p/W]                bodies, each with its length in four bytes; length 0: dropped by retention

NNN is the number in groups of three digits, all but the last with an "x" before it: x001/234.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from leasehold.audit import Record
from leasehold.errors import InvalidRequest
from leasehold.merkle import Edge, fold, leaf_hash

TILE_HASHES = 256
CHECKPOINT = "checkpoint"
ENTRY_LENGTH_BYTES, BODY_LENGTH_BYTES = 2, 4


def tile_path(kind: str, number: int, count: int) -> str:
    """Path of one tile below the folder; `kind` is "tile/0", "tile/entries" or "bodies", `count` what it holds."""
    digits = f"{number % 1000:03d}"
    while number >= 1000:
        number //= 1000
        digits = f"x{number % 1000:03d}/{digits}"
    return f"{kind}/{digits}" + ("" if count == TILE_HASHES else f".p/{count}")


def tiles_of(size: int) -> Iterator[tuple[int, int]]:
    """Number and count of each tile of the lowest level of a log of `size` events."""
    for first in range(0, size, TILE_HASHES):
        yield first // TILE_HASHES, min(TILE_HASHES, size - first)


class UpperTiles:
    """The tiles above the lowest level, as the roots of full ones come in."""

    def __init__(self) -> None:
        """None yet."""
        self._open: list[list[bytes]] = []
        self._numbers: list[int] = []

    def add(self, root: bytes) -> Iterator[tuple[int, int, bytes]]:
        """The root of the next full tile of level 0; gives level, number and hashes of each tile that it fills."""
        level = 1
        while True:
            if level > len(self._open):
                self._open.append([])
                self._numbers.append(0)
            hashes = self._open[level - 1]
            hashes.append(root)
            if len(hashes) < TILE_HASHES:
                return
            yield level, self._numbers[level - 1], b"".join(hashes)
            root = fold(hashes)
            hashes.clear()
            self._numbers[level - 1] += 1
            level += 1

    def rest(self) -> Iterator[tuple[int, int, bytes]]:
        """The tiles that are not full."""
        for level, (number, hashes) in enumerate(zip(self._numbers, self._open, strict=True), start=1):
            if hashes:
                yield level, number, b"".join(hashes)


def write_copy(folder: Path, records: Iterable[Record], note: bytes, size: int) -> bytes:
    """Write the first `size` records, from position 1, into a new folder; the checkpoint last.

    Returns:
        The root of what was written: the caller compares.

    Raises:
        InvalidRequest: the folder exists already, or a record is missing.
        OSError: it cannot be written.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise InvalidRequest.of_field("--output", f"{folder} exists already; name a folder that does not") from None
    edge, upper = Edge(), UpperTiles()
    last: list[bytes] = []
    source = iter(records)
    for number, count in tiles_of(size):
        batch = _take(source, number * TILE_HASHES, count)
        last = _write_lowest(folder, number, batch)
        if count == TILE_HASHES:
            root = fold(last)
            edge.grow(root, TILE_HASHES)
            last = []
            for level, at, hashes in upper.add(root):
                _write(folder, tile_path(f"tile/{level}", at, TILE_HASHES), hashes)
    for level, at, hashes in upper.rest():
        _write(folder, tile_path(f"tile/{level}", at, len(hashes) // len(leaf_hash(b""))), hashes)
    _write(folder, CHECKPOINT, note)
    return edge.root(last)


def _take(source: Iterator[Record], first: int, count: int) -> list[Record]:
    batch = []
    for position in range(first + 1, first + count + 1):
        record = next(source, None)
        if record is None or record.position != position:
            raise InvalidRequest.of_field("log", f"the collector did not give the event at position {position}")
        batch.append(record)
    return batch


def _write_lowest(folder: Path, number: int, batch: Sequence[Record]) -> list[bytes]:
    entries = [record.entry() for record in batch]
    leaves = [leaf_hash(entry) for entry in entries]
    count = len(batch)
    _write(folder, tile_path("tile/0", number, count), b"".join(leaves))
    _write(folder, tile_path("tile/entries", number, count), b"".join(map(_framed_entry, entries)))
    bodies = (len(record.body).to_bytes(BODY_LENGTH_BYTES, "big") + record.body for record in batch)
    _write(folder, tile_path("bodies", number, count), b"".join(bodies))
    return leaves


def _framed_entry(entry: bytes) -> bytes:
    return len(entry).to_bytes(ENTRY_LENGTH_BYTES, "big") + entry


def _write(folder: Path, path: str, data: bytes) -> None:
    target = folder / path
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(target, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
