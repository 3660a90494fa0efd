"""The log's Merkle tree, as whoever checks it computes it. Owns hashing and proofs (RFC 6962, 2.1); reads nothing.

Written apart from the broker's: the tests hold the two together.
"""

import hashlib
from collections.abc import Iterable, Sequence

EMPTY_ROOT = hashlib.sha256().digest()
HASH_BYTES = 32


def leaf_hash(entry: bytes) -> bytes:
    """Hash of one entry."""
    return hashlib.sha256(b"\0" + entry).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """Root over any number of neighbouring nodes of one level; an odd one at the right is carried up."""
    sha256 = hashlib.sha256
    level = list(hashes)
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        odd = level[len(level) & ~1 :]
        level = [
            sha256(b"\1" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)
        ] + odd
    return level[0]


class Edge:
    """The right edge of a tree that grows by whole subtrees: what a root at any size needs."""

    def __init__(self) -> None:
        """No entries."""
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []

    @classmethod
    def of(cls, other: "Edge") -> "Edge":
        """One like `other`, to grow apart."""
        edge = cls()
        edge.size, edge._peaks = other.size, list(other._peaks)  # noqa: SLF001 - its own kind
        return edge

    def grow(self, node: bytes, width: int = 1) -> None:
        """Append a perfect subtree of `width` entries, a power of two that divides the size so far."""
        self.size += width
        while self._peaks and self._peaks[-1][0] == width:
            node = hashlib.sha256(b"\1" + self._peaks.pop()[1] + node).digest()
            width *= 2
        self._peaks.append((width, node))

    def root(self, rest: Sequence[bytes] = ()) -> bytes:
        """Root of what is there and `rest`, hashes of entries fewer than the last subtree's width."""
        hashes = [node for _, node in self._peaks]
        if rest:
            hashes.append(fold(rest))
        if not hashes:
            return EMPTY_ROOT
        found = hashes[-1]
        for left in reversed(hashes[:-1]):
            found = hashlib.sha256(b"\1" + left + found).digest()
        return found


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root that an audit path leads to; None when it has the wrong length or there is no such entry."""
    if not 0 <= index < size:
        return None
    inner = (index ^ (size - 1)).bit_length()
    border = (index >> inner).bit_count()
    if len(proof) != inner + border or not _are_hashes(proof):
        return None
    found = leaf
    for level, sibling in enumerate(proof[:inner]):
        pair = sibling + found if index >> level & 1 else found + sibling
        found = hashlib.sha256(b"\1" + pair).digest()
    for sibling in proof[inner:]:
        found = hashlib.sha256(b"\1" + sibling + found).digest()
    return found


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of `new` entries is proven to begin with the tree of `old`."""
    if not 0 <= old <= new:
        return False
    if not _are_hashes((old_root, new_root, *proof)):
        return False
    if old == 0 and old_root != EMPTY_ROOT:
        return False
    if old in {0, new}:
        return not proof and (old == 0 < new or old_root == new_root)
    shift = (old & -old).bit_length() - 1
    inner = ((old - 1) ^ (new - 1)).bit_length() - shift
    begin = 0 if old == 1 << shift else 1
    border = ((old - 1) >> (inner + shift)).bit_count()
    if len(proof) != begin + inner + border:
        return False
    seed = proof[0] if begin else old_root
    place = (old - 1) >> shift
    from_old = from_new = seed
    for level, sibling in enumerate(proof[begin : begin + inner]):
        if place >> level & 1:
            from_old = hashlib.sha256(b"\1" + sibling + from_old).digest()
            from_new = hashlib.sha256(b"\1" + sibling + from_new).digest()
        else:
            from_new = hashlib.sha256(b"\1" + from_new + sibling).digest()
    for sibling in proof[begin + inner :]:
        from_old = hashlib.sha256(b"\1" + sibling + from_old).digest()
        from_new = hashlib.sha256(b"\1" + sibling + from_new).digest()
    return from_old == old_root and from_new == new_root


def _are_hashes(found: Iterable[bytes]) -> bool:
    return all(len(one) == HASH_BYTES for one in found)
