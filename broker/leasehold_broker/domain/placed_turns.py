"""What a process has placed in the log and hashed itself, turn by turn. Owns how much of it is remembered.

Whoever signs heads may go on from here instead of reading the same bytes back: each turn says which head it began at
and which one it made of it. Nothing of a turn whose commit is not known is noted, so there may be holes.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from leasehold_broker.domain.checkpoint import TreeHead

TURNS_MAX = 4096
"""Remembered at least, while they come; a log that is signed each second has a hundred in that time."""


@dataclass(frozen=True, slots=True)
class PlacedTurn:
    """One commit.

    Args:
        before, after: heads of the tree around it.
        peaks: hashes of the perfect subtrees that `after` is made of, from the left.
    """

    before: TreeHead
    after: TreeHead
    peaks: Sequence[bytes]


class PlacedTurns:
    """The newest turns of one process, in their order."""

    def __init__(self) -> None:
        """None yet."""
        self._turns: list[PlacedTurn] = []

    def note(self, turn: PlacedTurn) -> None:
        """Remember a turn that is committed."""
        if len(self._turns) >= 2 * TURNS_MAX:
            del self._turns[:TURNS_MAX]
        if self._turns and turn.before.size < self._turns[-1].after.size:
            self._turns.clear()  # the log is shorter than it was: what is remembered is of another
        self._turns.append(turn)

    def first_from(self, size: int) -> PlacedTurn | None:
        """The first that began when the log had so many records or more; None when none did."""
        at = bisect_left(self._turns, size, key=lambda turn: turn.before.size)
        return self._turns[at] if at < len(self._turns) else None
