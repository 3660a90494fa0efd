"""Wakes the sessions that have something new to push. Owns the order and the pace; knows nothing of what is pushed.

A push costs the loop a fraction of a millisecond: a fleet that is woken in one turn keeps everything else waiting until
its last push, the bytes of the first included. So a few are woken in each turn, and after all of them have had theirs,
the loop is left to others for as long as that took. Who is named hears all the same: what dies waits for nobody.

A session has one place at most, and is woken for all that is new: what comes while it waits goes out with one push.
"""

import asyncio
from collections.abc import Container, Iterator
from contextlib import contextmanager

EACH_TURN = 32
"""Woken in one turn of the loop: some milliseconds."""
OTHERS_EACH_TURN = 8
"""Of them at least: revocation upon revocation must not keep from hearing who is never named."""
REST_SECONDS_MAX = 0.25


class FanOut:
    """Sessions that wait for their turn: those that were named, and the others."""

    def __init__(self) -> None:
        """Start with no session."""
        self._sessions: dict[asyncio.Event, str] = {}
        self._named: dict[asyncio.Event, None] = {}
        self._others: dict[asyncio.Event, None] = {}
        self._next: asyncio.Handle | None = None
        self._resting = False
        self._began = 0.0
        self._left = 0
        """Of those who waited when this round of the others began."""
        self._rest_until = 0.0

    def __len__(self) -> int:
        """Open sessions."""
        return len(self._sessions)

    @contextmanager
    def session(self, name: str, wake: asyncio.Event) -> Iterator[None]:
        """Wake this session of a sidecar on what is new, while the context lasts."""
        self._sessions[wake] = name
        try:
            yield
        finally:
            for waiting in (self._sessions, self._named, self._others):
                waiting.pop(wake, None)

    def issued(self, first: Container[str]) -> None:
        """There is something new: wake every session, those of sidecars in `first` before whoever waits."""
        for wake, name in self._sessions.items():
            if name in first:
                self._others.pop(wake, None)
                self._named[wake] = None
            elif wake not in self._named:
                self._others[wake] = None
        if self._next is not None and not (self._resting and self._named):
            return  # in the next turn
        if self._next is not None:
            self._next.cancel()
        self._turn()

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        now, self._next = loop.time(), None
        rested = now >= self._rest_until
        woken = _wake(self._named, EACH_TURN - (min(OTHERS_EACH_TURN, len(self._others)) if rested else 0))
        if rested and self._others:
            if not self._left:
                self._began, self._left = now, len(self._others)
            self._left = max(0, self._left - _wake(self._others, EACH_TURN - woken))
            if not self._left or not self._others:
                now = loop.time()
                self._left, self._rest_until = 0, now + min(now - self._began, REST_SECONDS_MAX)
        self._resting = not self._named and loop.time() < self._rest_until
        if self._others and self._resting:
            self._next = loop.call_at(self._rest_until, self._turn)
        elif self._others or self._named:
            self._next = loop.call_soon(self._turn)


def _wake(waiting: dict[asyncio.Event, None], count_max: int) -> int:
    """Wake the first; returns how many."""
    some = [wake for wake, _ in zip(waiting, range(count_max), strict=False)]
    for wake in some:
        del waiting[wake]
        wake.set()
    return len(some)
