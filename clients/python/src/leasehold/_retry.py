"""When to try again, and when on a new channel. Owns these decisions; refuses to wait, call or know a connection.

Only UNAVAILABLE is tried again, within the one deadline of the call and with the same request, so with the same
request id. One exception: a workload token that was refused and has meanwhile been replaced is sent once more.
"""

import os
import random
import time
from collections.abc import Callable

from leasehold.errors import DEADLINE, IdentityRejected, LeaseholdError, Unavailable

STREAM_SECONDS_MAX = 3600.0
"""A watch is opened anew after this long, so that no stream outlives a change of its path."""
STREAM_SILENT_SECONDS_MAX = 120.0
"""A watch gives up after it could not be opened for this long."""
RETRY_AFTER_SECONDS_MAX = 30.0
ATTEMPTS_MAX = 5
BACKOFF_SECONDS = 0.1
BACKOFF_SECONDS_MAX = 2.0
FAILURES_BEFORE_NEW_CHANNEL = 2
"""A channel may be half-open: it hangs for hours though the broker is well, and trying on it again does not help."""


def backoff_seconds(failed: int, chance: float) -> float:
    """Pause after the `failed`-th failure in a row: doubling, bounded, with half of it left to chance."""
    whole: float = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS * 2.0 ** (failed - 1))
    return whole * (0.5 + chance / 2)


class Attempts:
    """The tries of one call: how long is left, and whether and when to try again."""

    def __init__(
        self,
        timeout_seconds: float,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Start the clock of one call.

        Args:
            timeout_seconds: for all tries together.
            now: monotonic seconds.
            chance: uniform in [0, 1), for jitter.
        """
        self._now = now
        self._chance = chance
        self._deadline = now() + timeout_seconds
        self._failed = 0
        self._identity_retried = False

    def seconds_left(self) -> float:
        """Until the deadline; at least a millisecond, so that the call fails by deadline rather than by argument."""
        return max(0.001, self._deadline - self._now())

    def pause_after(self, error: LeaseholdError, *, token_changed: bool) -> float:
        """Seconds to wait before the next try.

        Raises:
            LeaseholdError: `error`, when there is no next try.
        """
        self._failed += 1
        if isinstance(error, IdentityRejected) and token_changed and not self._identity_retried:
            self._identity_retried = True
            return 0.0
        if not isinstance(error, Unavailable) or error.reason == DEADLINE or self._failed >= ATTEMPTS_MAX:
            raise error
        pause = backoff_seconds(self._failed, self._chance())
        if error.retry_after is not None:
            pause += error.retry_after
        if pause >= self._deadline - self._now():
            raise error
        return pause


class ChannelHealth:
    """Counts failures in a row and says when the channel is to be replaced."""

    def __init__(self) -> None:
        """A healthy channel of this process."""
        self._failures = 0
        self._pid = os.getpid()

    def succeeded(self) -> None:
        """An answer came, whatever it says."""
        self._failures = 0

    def failed(self, error: LeaseholdError) -> bool:
        """True when the channel is to be replaced before the next call."""
        if not isinstance(error, Unavailable):
            self._failures = 0
            return False
        self._failures += 1
        if self._failures < FAILURES_BEFORE_NEW_CHANNEL:
            return False
        self._failures = 0
        return True

    def forked(self) -> bool:
        """True once after a fork: threads and sockets of the parent's channel are not here."""
        if self._pid == os.getpid():
            return False
        self._pid = os.getpid()
        return True


class StreamAttempts:
    """When a stream that broke is opened again: at once after its longest age, with pauses otherwise, not for ever."""

    def __init__(self, now: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random) -> None:
        """A stream that is about to be opened; `now` and `chance` as in `Attempts`."""
        self._now = now
        self._chance = chance
        self._good_at = now()
        self._failed = 0

    def received(self) -> None:
        """A message came: the stream is well."""
        self._good_at = self._now()
        self._failed = 0

    def pause_after(self, error: LeaseholdError) -> float:
        """Seconds to wait before the stream is opened again.

        Raises:
            LeaseholdError: `error`, when it is no passing trouble, or has lasted too long.
        """
        if not isinstance(error, Unavailable):
            raise error
        if error.reason == DEADLINE:
            self._good_at = self._now()
            return 0.0
        if self._now() - self._good_at > STREAM_SILENT_SECONDS_MAX:
            raise error
        self._failed = min(self._failed + 1, 16)
        pause = backoff_seconds(self._failed, self._chance())
        return pause + min(error.retry_after or 0.0, RETRY_AFTER_SECONDS_MAX)
