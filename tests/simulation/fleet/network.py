"""The network between sidecars and the centre: connections that keep order until they break, and what middleboxes do.

Owns bytes under way. Each direction of a connection is a queue; a partition holds one direction or both back; a break
loses what is under way, and the two ends learn of it apart. A middlebox may lose, repeat or swap single messages, which
TCP would not: what crosses is checked by the ends anyway.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.simulation.fleet.loop import NumberedEvent

CONNECT_SECONDS_MAX = 20.0
KEEPALIVE_SECONDS = 40.0
"""A half-open connection is found dead after so long."""
UP, DOWN = "up", "down"
CLOSE, STATUS, MESSAGE = "close", "status", "message"
LOOKED_AT_SECONDS = 1.0
"""How soon what a partition held back goes on, once all faults are over: long before that partition's own end."""


@dataclass
class Path:
    """Between one host and the centre. `blocked`: until when a direction carries nothing; times in virtual seconds."""

    delay_seconds: float = 0.03
    floor_seconds: float = 0.001
    lose: float = 0.0
    repeat: float = 0.0
    swap: float = 0.0
    blocked: dict[str, float] = field(default_factory=lambda: {UP: 0.0, DOWN: 0.0})


@dataclass(eq=False)
class Lane:
    """One direction of one connection."""

    direction: str
    deliver: Callable[[str, Any], None]
    queue: deque[tuple[float, str, Any]] = field(default_factory=deque)
    last_at: float = 0.0
    armed: bool = False
    cut: bool = False


class Network:
    """Carries messages."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: Random, seen: Counter[str]) -> None:
        """Nothing is under way."""
        self._loop = loop
        self._chance = chance
        self._seen = seen
        self.paths: dict[str, Path] = {}
        self.crossed = 0
        self.calm = False
        """Middleboxes behave, and nothing blocks."""

    def path(self, host: str) -> Path:
        """To this host."""
        return self.paths.setdefault(host, Path())

    def send(self, host: str, lane: Lane, kind: str, what: Any, label: str) -> None:
        """Put something on its way; arrivals on one lane keep their order, unless a middlebox meddles."""
        path = self.path(host)
        self.crossed += 1
        times = 1
        if kind == MESSAGE and not self.calm:
            draw = self._chance.random()
            if draw < path.lose:
                self._seen[f"{label} lost"] += 1
                return
            if draw < path.lose + path.repeat:
                self._seen[f"{label} repeated"] += 1
                times = 2
        for _ in range(times):
            delay = path.floor_seconds + self._chance.expovariate(1 / path.delay_seconds)
            lane.last_at = max(lane.last_at + 1e-6, self._loop.time() + delay)
            lane.queue.append((lane.last_at, kind, what))
        behind = kind == MESSAGE and len(lane.queue) > 1 and lane.queue[-2][1] == MESSAGE
        if behind and not self.calm and self._chance.random() < path.swap:
            self._seen[f"{label} reordered"] += 1
            (at, *one), (later, *two) = lane.queue[-2], lane.queue[-1]
            lane.queue[-2], lane.queue[-1] = (at, *two), (later, *one)
        self._arm(path, lane)

    def cut(self, lane: Lane) -> None:
        """Lose what is under way there, and whatever follows."""
        self._seen["message lost in a break"] += any(kind == MESSAGE for _, kind, _ in lane.queue)
        lane.cut = True
        lane.queue.clear()

    def _arm(self, path: Path, lane: Lane) -> None:
        if lane.armed or not lane.queue or lane.cut:
            return
        lane.armed = True
        blocked = 0.0 if self.calm else min(path.blocked[lane.direction], self._loop.time() + LOOKED_AT_SECONDS)
        self._loop.call_at(max(lane.queue[0][0], blocked), self._arrive, path, lane)

    def _arrive(self, path: Path, lane: Lane) -> None:
        lane.armed = False
        if lane.cut or not lane.queue:
            return
        if not self.calm and path.blocked[lane.direction] > self._loop.time():
            self._arm(path, lane)
            return
        _, kind, what = lane.queue.popleft()
        lane.deliver(kind, what)
        self._arm(path, lane)


class Inbox:
    """What has arrived at one end of a stream, until it is read."""

    def __init__(self) -> None:
        """Empty."""
        self._items: deque[Any] = deque()
        self._more = NumberedEvent()
        self.ended: Any = None

    def put(self, item: Any) -> None:
        """One message."""
        self._items.append(item)
        self._more.set()

    def end(self, how: Any) -> None:
        """No more will come; `how` is not None."""
        if self.ended is None:
            self.ended = how
            self._more.set()

    async def get(self) -> tuple[bool, Any]:
        """(True, message), or (False, how it ended)."""
        while not self._items:
            if self.ended is not None:
                return False, self.ended
            self._more.clear()
            await self._more.wait()
        return True, self._items.popleft()
