"""A share of the event loop for work that would fill it. Owns that nobody waits for a backlog of it.

A batch of events takes milliseconds of the loop. When many sidecars ship as fast as they can, all that came is ready in
one turn, and a responder's call, which takes several turns, would wait for all of it in each.
"""

import asyncio
from collections import deque


class LoopShare:
    """So much of one kind of work in a turn of the loop; what is more waits for the next, in order."""

    def __init__(self, each_turn: int) -> None:
        """Let so much through in a turn, and one piece of work at least."""
        self._each_turn = each_turn
        self._left = each_turn
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._next: asyncio.Handle | None = None

    async def take(self, amount: int) -> None:
        """Return when so much may be done; at once while there is some left."""
        if not self._waiting and self._left > 0:
            self._spend(amount)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        await turn

    def _spend(self, amount: int) -> None:
        self._left -= amount
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._next, self._left = None, self._each_turn
        while self._waiting and self._left > 0:
            amount, turn = self._waiting.popleft()
            if not turn.done():  # else whoever waited is gone
                self._spend(amount)
                turn.set_result(None)
