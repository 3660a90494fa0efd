"""The Merkle tree of the log. Owns hashing and proofs as RFC 6962, section 2, has them; stores nothing.

It makes proofs and checks none: that is the client's part (leasehold.merkle), written apart.

Entry hash: SHA-256(0x00 || data); node: SHA-256(0x01 || left || right); the root of no entries: SHA-256 of nothing. A
*perfect* node (level, index) covers the entries [index << level, (index + 1) << level) and never changes once they are
there. Every proof, and every root, is made of perfect nodes.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

Node = tuple[int, int]
"""Level, from 0 for entries, and index from the left."""
NodeHash = Callable[[int, int], bytes]

EMPTY_ROOT = hashlib.sha256().digest()
HASH_BYTES = 32


def leaf_hash(data: bytes) -> bytes:
    """Hash of one entry."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of a node over its children."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: the roots of its perfect subtrees, largest first."""

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Go on from a tree of `size` entries whose `peaks(size)` hash to these.

        Raises:
            ValueError: not one hash for each peak.
        """
        if len(peaks) != size.bit_count():
            message = f"a tree of {size} entries has {size.bit_count()} peaks, not {len(peaks)}"
            raise ValueError(message)
        self.size = size
        self._peaks = list(peaks)

    def append(self, leaves: Iterable[bytes]) -> None:
        """Add the hashes of the next entries."""
        sha256, peaks, size = hashlib.sha256, self._peaks, self.size
        for leaf in leaves:
            node, merging = leaf, size
            while merging & 1:
                node = sha256(b"\1" + peaks.pop() + node).digest()  # node_hash; a call costs as much as the hash
                merging >>= 1
            peaks.append(node)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """Root over everything so far."""
        return fold(self._peaks)


def peaks(size: int) -> Iterator[Node]:
    """The perfect nodes that a tree of `size` entries is made of, from the left."""
    return _perfect(0, size)


def root_of(size: int, node: NodeHash) -> bytes:
    """Root of the first `size` entries."""
    return _root(0, size, node)


def inclusion_proof(index: int, size: int, node: NodeHash) -> list[bytes]:
    """Audit path of entry `index` (from 0) in the tree of the first `size` entries (RFC 6962, 2.1.1).

    Raises:
        ValueError: there is no such entry.
    """
    if not 0 <= index < size:
        message = f"a tree of {size} entries has no entry {index}"
        raise ValueError(message)
    return [_root(start, end, node) for start, end in _path(index, 0, size)]


def consistency_proof(old: int, new: int, node: NodeHash) -> list[bytes]:
    """That the tree of `new` entries begins with the tree of `old` (RFC 6962, 2.1.2); empty for old in {0, new}.

    Raises:
        ValueError: the old tree is larger.
    """
    if not 0 <= old <= new:
        message = f"a tree of {new} entries does not begin with one of {old}"
        raise ValueError(message)
    if old in {0, new}:
        return []
    return [_root(start, end, node) for start, end in _subproof(old, 0, new, whole=True)]


def _path(index: int, start: int, end: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start = middle
    return found[::-1]


def _subproof(old: int, start: int, end: int, *, whole: bool) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start, whole = middle, False
    if not whole:
        found.append((start, end))
    return found[::-1]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def _root(start: int, end: int, node: NodeHash) -> bytes:
    return fold([node(level, index) for level, index in _perfect(start, end)])


def _perfect(start: int, end: int) -> Iterator[Node]:
    """Perfect nodes that cover [start, end); `start` is a multiple of a power of two not below end - start."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def fold(hashes: Sequence[bytes]) -> bytes:
    """Root over the roots of perfect subtrees, largest first."""
    if not hashes:
        return EMPTY_ROOT
    found = hashes[-1]
    for left in reversed(hashes[:-1]):
        found = node_hash(left, found)
    return found
