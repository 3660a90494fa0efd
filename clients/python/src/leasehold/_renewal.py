"""When to renew. Owns the schedule of one lease's life; refuses to read a clock, wait or call.

Times come relative from the broker and are counted on a clock that only grows, so a wrong wall clock cannot hurt. A
renewal that fails takes nothing away: the lease is used until its own end, and renewal is tried again until then.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from leasehold.errors import LeaseEnded, LeaseholdError, NotFound

WAIT_SECONDS_MAX = 10.0
"""Longest wait in one piece: how soon after a sleep of the machine its jump is noticed."""
JUMP_SECONDS = 2.0
RETRY_SECONDS = 0.5
RETRY_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the clocks, in seconds.

    Args:
        now: only grows; counts a suspended machine's time where the system can.
        offset: changes when the machine has slept, or when the wall clock was set.
    """

    now: float
    offset: float


def read_clocks() -> Reading:
    """The clocks of this machine: CLOCK_BOOTTIME where there is one, else monotonic against wall."""
    awake = time.monotonic()
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return Reading(awake, time.time() - awake)
    now = time.clock_gettime(boottime)
    return Reading(now, now - awake)


class Renewal:
    """The schedule of one lease. Not safe for several threads: its owner locks."""

    def __init__(
        self, ttl_seconds: float, renew_after_seconds: float, at: Reading, chance: Callable[[], float] = random.random
    ) -> None:
        """Start from an answer of the broker.

        Args:
            ttl_seconds: time left when the answer was written.
            renew_after_seconds: when to renew; 0 when it cannot be renewed.
            at: when the call was *sent*: so our end is never later than the broker's.
            chance: uniform in [0, 1), for jitter.
        """
        self._chance = chance
        self._offset = at.offset
        self._failures = 0
        self._ends_at = 0.0
        self._due_at: float | None = None
        self.error: LeaseholdError | None = None
        self.lost: LeaseholdError | None = None
        self.succeeded(ttl_seconds, renew_after_seconds, at)

    def succeeded(self, ttl_seconds: float, renew_after_seconds: float, at: Reading) -> None:
        """A renewal, or any fresh look at the lease, was answered; `at` as in the constructor."""
        self._ends_at = at.now + ttl_seconds
        self._due_at = at.now + renew_after_seconds if renew_after_seconds > 0 else None
        self._failures = 0
        self.error = None

    def looked(self, ttl_seconds: float, at: Reading) -> None:
        """A read was answered: the end is known anew. The time of renewal stays, or polling would put it off."""
        self._ends_at = at.now + ttl_seconds

    def failed(self, error: LeaseholdError, at: Reading) -> None:
        """A renewal was refused or unanswered. An answer that the lease is gone ends it; all else is tried again."""
        self.error = error
        if isinstance(error, (LeaseEnded, NotFound)):
            self.lost = error
            return
        if error.reason == "MAX_TTL_REACHED":
            self._due_at = None
            return
        pause: float = min(RETRY_SECONDS_MAX, RETRY_SECONDS * 2.0**self._failures) * (0.5 + self._chance() / 2)
        self._failures = min(self._failures + 1, 16)
        self._due_at = at.now + pause + (error.retry_after or 0.0)

    def ended(self, error: LeaseholdError) -> None:
        """The lease is known to be over."""
        self.lost = self.lost or error

    def seconds_left(self, at: Reading) -> float:
        """Until the lease ends by itself; 0 when it has, or is lost."""
        return 0.0 if self.lost else max(0.0, self._ends_at - at.now)

    def wait_seconds(self, at: Reading) -> float | None:
        """How long to wait before asking again; 0: renew now; None: it is over, `lost` says why."""
        if self.lost is not None:
            return None
        if at.now >= self._ends_at:
            why = f" (renewal failed: {self.error.message})" if self.error else ""
            self.lost = LeaseEnded(f"the lease has expired{why}.", reason="LEASE_EXPIRED")
            return None
        slept = abs(at.offset - self._offset) > JUMP_SECONDS
        self._offset = at.offset
        if self._due_at is not None and (slept or at.now >= self._due_at):
            return 0.0
        next_look = self._ends_at if self._due_at is None else min(self._due_at, self._ends_at)
        return min(next_look - at.now, WAIT_SECONDS_MAX)
