"""Slows down whoever is refused too often: its bytes wait, before they cost anything. Owns the allowance and the order.

A refused RPC costs an audit event and a good part of a millisecond. A peer may be refused `each_per_second` times a
second; what it is refused beyond is a debt. Until that is paid off its bytes wait, and then come a little at a time, as
long as any of them wait. Other peers do not notice. Refuses to know what the bytes mean.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

HOLDERS_MAX = 4096


@dataclass(frozen=True, slots=True)
class BrakeLimits:
    """Bounds of the brake.

    Args:
        each_per_second: refusals of one holder; twice as many in a burst.
        debt_max: refusals that a holder may have to wait off; a minute's worth.
        slice_bytes: let through at a time while there is a debt or a queue.
        tick_seconds: between two slices of one holder.
    """

    each_per_second: int = 50
    debt_max: int = 3000
    slice_bytes: int = 1024
    tick_seconds: float = 0.01


@dataclass(slots=True)
class _Holder:
    """One peer: what it may still be refused, as of a time, and its connections that wait."""

    left: float
    since: float
    waiting: deque[Callable[[int], bool]]


class RefusalBrake:
    """Lives on one event loop."""

    def __init__(self, limits: BrakeLimits | None = None) -> None:
        """Nobody has been refused yet."""
        self._limits = limits or BrakeLimits()
        self._holders: dict[str, _Holder] = {}

    def refused(self, holder: str) -> None:
        """One more refusal of `holder`."""
        known = self._now(holder)
        known.left = max(known.left - 1, -float(self._limits.debt_max))
        self._holders[holder] = known
        for name in list(self._holders) if len(self._holders) > HOLDERS_MAX else ():
            if not self._holders[name].waiting:
                del self._holders[name]
                break

    def holds(self, holder: str) -> bool:
        """True when bytes of `holder` have to wait."""
        if holder not in self._holders:
            return False
        known = self._now(holder)
        return bool(known.waiting) or known.left < 0

    def wait(self, holder: str, let_through: Callable[[int], bool]) -> None:
        """Call `let_through` with a number of bytes when it is their turn, again as long as it answers True."""
        known = self._now(holder)
        self._holders[holder] = known
        known.waiting.append(let_through)
        if len(known.waiting) == 1:
            self._again(holder)

    def _again(self, holder: str) -> None:
        known = self._now(holder)
        due = max(self._limits.tick_seconds, -known.left / self._limits.each_per_second)
        asyncio.get_running_loop().call_later(due, self._turn, holder)

    def _turn(self, holder: str) -> None:
        known = self._now(holder)
        if known.left >= 0:
            first = known.waiting[0]
            more = first(self._limits.slice_bytes)
            known.waiting.popleft()
            if more:
                known.waiting.append(first)
        if known.waiting:
            self._again(holder)

    def _now(self, holder: str) -> _Holder:
        now, most = asyncio.get_running_loop().time(), 2.0 * self._limits.each_per_second
        known = self._holders.get(holder)
        if known is None:
            return _Holder(most, now, deque())
        known.left = min(most, known.left + (now - known.since) * self._limits.each_per_second)
        known.since = now
        return known
