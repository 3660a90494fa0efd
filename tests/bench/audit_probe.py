"""Processor time of checking a copy of the log offline, per event: python -m tests.bench.audit_probe."""

import sys
import tempfile
import time
from pathlib import Path

from tests.fakes.log_copy import SignedLog, interleaved

from leasehold.audit_copy import verify_copy

CHECKED = 200_000
ROUNDS = 5


def check_us(folder: Path) -> float:
    """Processor microseconds for one event of a copy, the best of some rounds."""
    log = SignedLog(folder)
    copy = log.copy(interleaved(CHECKED, streams=10))
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        verdict = verify_copy(copy, log.key)
        best = min(best, time.process_time() - started)
        assert verdict.holds
        assert verdict.records == CHECKED
    return best / CHECKED * 1e6


def measure() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="leasehold-bench-") as folder:
        each = check_us(Path(folder))
    sys.stdout.write(f"\na copy checked offline: {each:.1f} us for each event, {1e6 / each:,.0f}/s on one core\n")


if __name__ == "__main__":
    measure()
