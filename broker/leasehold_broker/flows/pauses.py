"""How long not to ask again after a failure. Owns the doubling; refuses to grow without bound."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from leasehold_broker.domain.time import NANOS, Instant

PAUSE_SECONDS, PAUSE_SECONDS_MAX = 1.0, 60.0
"""After a failure, doubled with each."""
PAUSES_MAX = 1_000

K = TypeVar("K", bound=Hashable)
F = TypeVar("F", bound=Exception)


@dataclass(slots=True)
class _Pause(Generic[F]):
    until_ns: int
    seconds: float
    fault: F


class Pauses(Generic[K, F]):
    """What failed last, and until when it is not asked again."""

    def __init__(self) -> None:
        """Nothing has failed."""
        self._pauses: dict[K, _Pause[F]] = {}

    def failed(self, which: K, fault: F, now: Instant, asked_seconds: float = 0.0) -> None:
        """Pause: twice as long as the last time, and as long as was asked for, a minute at most."""
        before = self._pauses.pop(which, None)
        seconds = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS if before is None else 2 * before.seconds)
        wait = max(seconds, min(asked_seconds, PAUSE_SECONDS_MAX))
        self._pauses[which] = _Pause(now.after(wait), seconds, fault)
        while len(self._pauses) > PAUSES_MAX:
            del self._pauses[next(iter(self._pauses))]

    def over(self, which: K) -> None:
        """It went well."""
        self._pauses.pop(which, None)

    def current(self, which: K, now: Instant) -> tuple[F, float] | None:
        """The failure, and the seconds until it may be asked again; None when it may be now."""
        pause = self._pauses.get(which)
        if pause is None or now.boot_ns >= pause.until_ns:
            return None
        return pause.fault, (pause.until_ns - now.boot_ns) / NANOS
