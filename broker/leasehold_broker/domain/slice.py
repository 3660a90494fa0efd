"""One slice at the sidecar that may spend it: its bounds (E3, E5, E9), and what to ask the centre for.

Owns what of a slice may be held by a new call, and that what was returned is never spent again. A slice dies with the
process that it was granted to: it is kept in memory only. What was spent of it is in the ledger, and durable.

Refuses to know the ledger, messages and clocks: it is told how the account stands, and the time.
"""

from collections import deque
from dataclasses import dataclass, field

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.time import NANOS

HORIZON_SECONDS = 30
"""As much as was drawn in so long is wanted for the next so long."""
NEED_SECONDS = 10
"""A refused call is counted as wanted for so long; its caller was told to come back sooner."""
_SAMPLES_MAX = 120
_REFUSED_MAX = 32


@dataclass(slots=True)
class OwnSlice:
    """What this process was granted of one budget in one metric and one window.

    Args:
        fence: names it.
        granted, returned: totals.
        until_ns: boot reading at which it ends, unless the centre is heard again before.
        over: the centre does not list it: its window has ended, or another life of this sidecar was seen.
    """

    budget: str
    metric: Metric
    fence: int
    granted: int = 0
    returned: int = 0
    until_ns: int = 0
    over: bool = False

    @property
    def right(self) -> int:
        """Up to where settled and held together may go."""
        return self.granted - self.returned

    def cap(self, boot_ns: int) -> int:
        """What the ledger may let calls take now; 0 once it has ended: what is held stays, and nothing new fits."""
        return 0 if self.over or boot_ns >= self.until_ns else self.right

    def available(self, settled: int, held: int) -> int:
        """What is neither spent nor held nor returned."""
        return max(0, self.right - settled - held)

    def take(self, granted: int, until_ns: int) -> None:
        """The centre says that so much was granted in all, good until then. Older words change nothing."""
        if not self.over:
            self.granted = max(self.granted, granted)
            self.until_ns = max(self.until_ns, until_ns)

    def give_back(self, keep: int, settled: int, held: int) -> int:
        """Return what is available above `keep`; from here on nothing of it is spent. Returns how much."""
        amount = max(0, self.available(settled, held) - keep)
        self.returned += amount
        return amount

    def finish(self) -> None:
        """Draw nothing on it, unless the centre lists it again."""
        self.over = True

    def resume(self) -> None:
        """The centre lists it again: it is what it was, less what was returned meanwhile."""
        self.over = False


@dataclass(slots=True)
class _Sample:
    """How an account stood; `peak` is the highest of settled and held together since the sample before."""

    boot_ns: int
    settled: int
    held: int
    peak: int


@dataclass(slots=True)
class Pace:
    """How much of a budget is drawn here, and what has to be asked for. Bounded memory."""

    _samples: deque[_Sample] = field(default_factory=deque)
    _refused: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Worst cases that did not fit, the latest last: until when each counts, and what had been drawn by then."""

    def sample(self, boot_ns: int, settled: int, held: int) -> None:
        """Note how things stand; totals over all slices of the budget, so that what is settled only grows."""
        samples = self._samples
        if len(samples) > 1 and boot_ns - samples[-1].boot_ns < HORIZON_SECONDS * NANOS // _SAMPLES_MAX:
            last = samples[-1]
            last.settled, last.held, last.peak = settled, held, max(last.peak, settled + held)
        else:
            samples.append(_Sample(boot_ns, settled, held, settled + held))
        while len(samples) > 1 and samples[1].boot_ns <= boot_ns - HORIZON_SECONDS * NANOS:
            samples.popleft()

    def refused(self, boot_ns: int, wanted: int, drawn: int) -> None:
        """A call was refused for want of a larger slice, when this much had been drawn in all."""
        self._refused.pop(wanted, None)
        self._refused[wanted] = (boot_ns + NEED_SECONDS * NANOS, drawn)
        if len(self._refused) > _REFUSED_MAX:
            del self._refused[next(iter(self._refused))]

    def want(self) -> int:
        """What was drawn within the horizon at its peak, less what is held still."""
        if not self._samples:
            return 0
        first, last = self._samples[0], self._samples[-1]
        return max(0, max(one.peak for one in self._samples) - first.settled - last.held)

    def need(self, boot_ns: int, drawn: int, most: int) -> int:
        """The largest worst case, of at most `most`, that was refused lately and not drawn since; 0 for none.

        It counts while its caller may come back, also once it would fit: what was granted for it must be there then.
        """
        for wanted, (until_ns, then) in tuple(self._refused.items()):
            if boot_ns >= until_ns or drawn >= then + wanted:
                del self._refused[wanted]
        return max((wanted for wanted in self._refused if wanted <= most), default=0)
