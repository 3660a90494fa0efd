"""How much of the server one peer may hold at a time. Owns the counts; one greedy peer cannot starve its neighbours."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from leasehold_broker.domain.reasons import Reason, Refusal

RETRY_SECONDS = 1.0


class Occupancy:
    """Counts open calls by holder. Entries of holders without calls are dropped, so it never outgrows the calls."""

    def __init__(self, what: str, each_max: int, whose: str = "peer") -> None:
        """Allow `each_max` open at once for each holder; `what` and `whose` name them in the refusal."""
        self._whose = whose
        self._what = what
        self._each_max = each_max
        self._open: Counter[str] = Counter()

    @contextmanager
    def held(self, holder: str) -> Iterator[None]:
        """One more for `holder`, until the block ends.

        Raises:
            Refusal: CONCURRENCY_EXCEEDED.
        """
        if self._open[holder] >= self._each_max:
            raise Refusal(
                Reason.CONCURRENCY_EXCEEDED,
                f"this {self._whose} has {self._each_max} {self._what} open, its maximum; end one first",
                retry_after_seconds=RETRY_SECONDS,
            )
        self._open[holder] += 1
        try:
            yield
        finally:
            self._open[holder] -= 1
            if not self._open[holder]:
                del self._open[holder]
