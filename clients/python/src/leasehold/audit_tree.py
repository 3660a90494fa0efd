"""Hold a log against the checkpoints that were signed of it. Owns the verdict on sizes and roots, whatever the copy."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from leasehold.audit import Record
from leasehold.checkpoint import Checkpoint
from leasehold.merkle import Edge, leaf_hash


@dataclass(slots=True)
class TreeVerdict:
    """What the checkpoints say.

    Args:
        held: sizes of the checkpoints that the log agrees with, smallest first.
        wrong: what contradicts one, in words.
    """

    held: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Roots:
    """The roots that are wanted at certain sizes, compared as the log is gone through."""

    def __init__(self, checkpoints: Iterable[Checkpoint]) -> None:
        """Compare with these. Two of one size with different roots are a fork in themselves."""
        self.verdict = TreeVerdict()
        self._wanted: dict[int, bytes] = {}
        for checkpoint in checkpoints:
            known = self._wanted.setdefault(checkpoint.size, checkpoint.root)
            if known != checkpoint.root:
                self.verdict.wrong.append(
                    f"two checkpoints of {checkpoint.size} events have different roots: the log was forked"
                )
        self._sizes = sorted(self._wanted)
        self.next_size = 0
        self._take()

    def compare(self, size: int, root: bytes) -> None:
        """The log's root at `next_size`."""
        if root == self._wanted[size]:
            self.verdict.held.append(size)
        else:
            since = self.verdict.held[-1] if self.verdict.held else 0
            self.verdict.wrong.append(
                f"the first {size} events do not have the root that was signed: an event from {since + 1} to {size} "
                "was rewritten, or the log was forked there"
            )
        self._take()

    def finish(self, size: int) -> TreeVerdict:
        """The log ends at `size` events."""
        while self.next_size >= 0:
            self.verdict.wrong.append(
                f"a checkpoint covers {self.next_size} events and this log has {size}: its end is missing"
            )
            self._take()
        return self.verdict

    def _take(self) -> None:
        self.next_size = self._sizes.pop(0) if self._sizes else -1


def with_roots(records: Iterable[tuple[str, Record]], roots: Roots) -> Iterator[tuple[str, Record]]:
    """Pass whole logs through, from position 1 on, comparing on the way; `roots.finish` is the caller's."""
    edge = Edge()
    _compare_at(edge, roots)
    for where, record in records:
        edge.grow(leaf_hash(record.entry()))
        _compare_at(edge, roots)
        yield where, record


def _compare_at(edge: Edge, roots: Roots) -> None:
    while roots.next_size == edge.size:
        roots.compare(edge.size, edge.root())
