"""The centre's own books of fleet budgets, checked by what a step has touched; and all, now and then (E1, E4 to E7).

Owns which slices a step has changed: the escrows of the centre note every slice they look up. Sums are carried on from
the touched ones. `complete` knows nothing of that: it counts everything anew, and so holds the other way to account.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from leasehold_broker.domain.escrow import Escrow, Slice, SliceState
from leasehold_broker.flows import escrow_windows


@dataclass(slots=True)
class _Was:
    """Of a slice, as it was when last looked at."""

    right: int = 0
    gone: int = 0
    open_: bool = False


@dataclass(slots=True, eq=False)
class WatchedEscrow(Escrow):
    """The real one, which notes what is touched. `touched` is of it, `changed` of all escrows of the world."""

    changed: dict["WatchedEscrow", None] = field(default_factory=dict)
    touched: dict[int, None] = field(default_factory=dict)
    was: dict[int, _Was] = field(default_factory=dict)
    open_by: Counter[str] = field(default_factory=Counter)
    rights_sum: int = 0
    gone_sum: int = 0

    def __hash__(self) -> int:
        """It is the one that it is."""
        return id(self)

    def __eq__(self, other: object) -> bool:
        """Identity."""
        return self is other

    def _known(self, fence: int) -> Slice:
        self._touch(fence)
        return Escrow._known(self, fence)

    def open(self, sidecar: str, life: str, fence: int) -> Slice:
        """As the escrow does."""
        self._touch(fence)
        return Escrow.open(self, sidecar, life, fence)

    def restore(self, one: Slice) -> None:
        """As the escrow does."""
        self._touch(one.fence)
        Escrow.restore(self, one)

    def _touch(self, fence: int) -> None:
        self.touched[fence] = None
        self.changed[self] = None


class CentreBooks:
    """What every slice at the centre must be, whoever grants."""

    def __init__(self, truth: Any, seen: Counter[str]) -> None:
        """`truth` knows what was really drawn and returned."""
        self._truth = truth
        self._seen = seen
        self._reported: defaultdict[int, int] = defaultdict(int)
        self._changed: dict[WatchedEscrow, None] = {}
        self._live: dict[WatchedEscrow, None] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Escrows that are made meanwhile are watched."""

        def made(cap: int) -> WatchedEscrow:
            escrow = WatchedEscrow(cap, changed=self._changed)
            self._live[escrow] = None
            return escrow

        with patch.object(escrow_windows, "Escrow", made):
            yield

    def forget(self) -> None:
        """A centre died: reports that were not durable are told again, and its escrows are nobody's."""
        self._reported.clear()
        self._changed.clear()
        self._live.clear()

    def drawn_less(self, fence: int) -> None:
        """A call took less than it held: what was reported of it may be too much now."""
        for escrow in self._live:
            if fence in escrow.slices:
                escrow._touch(fence)

    def look(self) -> None:
        """After a step: what it has touched, and the sums."""
        if not self._changed:
            return
        changed = tuple(self._changed)
        self._changed.clear()
        for escrow in changed:
            touched = tuple(escrow.touched)
            escrow.touched.clear()
            for fence in touched:
                one = escrow.slices.get(fence)
                if one is not None:
                    self._carry(escrow, one)
            _sums(escrow, escrow.rights_sum, escrow.gone_sum)

    def _carry(self, escrow: WatchedEscrow, one: Slice) -> None:
        before = escrow.was.setdefault(one.fence, _Was())
        escrow.rights_sum += _right(one) - before.right
        escrow.gone_sum += _gone(one) - before.gone
        open_ = one.state is SliceState.OPEN
        escrow.open_by[one.sidecar] += open_ - before.open_
        before.right, before.gone, before.open_ = _right(one), _gone(one), open_
        assert escrow.open_by[one.sidecar] <= 1, "E7: two slices of one sidecar are open"
        self._slice(one)

    def complete(self, windows: Iterable[Any]) -> None:
        """All that there is, from nothing."""
        for running in windows:
            slices = list(running.escrow.slices.values())
            _sums(running.escrow, sum(map(_right, slices)), sum(map(_gone, slices)))
            open_ = [one.sidecar for one in slices if one.state is SliceState.OPEN]
            assert len(open_) == len(set(open_)), "E7: two slices of one sidecar are open"
            for one in slices:
                self._slice(one)

    def _slice(self, one: Slice) -> None:
        truth = self._truth
        self._seen["taken over"] += one.state is SliceState.ENDED
        assert one.returned <= max(truth.said_returned[one.fence], 0) or one.fence in truth.copied, f"E5: {one}"
        assert one.reported >= self._reported[one.fence], f"E4: what was reported fell: {one}"
        self._reported[one.fence] = one.reported
        if one.fence not in truth.copied:
            assert one.reported <= truth.drawn[one.fence], f"E4: {one}, drawn {truth.drawn[one.fence]}"


def _right(one: Slice) -> int:
    return one.granted - one.returned


def _gone(one: Slice) -> int:
    return min(one.reported, _right(one)) + one.written_off


def _sums(escrow: Escrow, rights: int, gone: int) -> None:
    assert escrow.free == escrow.cap - rights, "E1: free is not what is left of the cap"
    assert escrow.gone == gone, "E1: what is gone is not what was reported and written off"
