"""Processor time of the audit log, per event: taking events in over the wire, signing them, and checking a copy.

Run as: python -m tests.bench.audit_probe. Ingest is measured as the processor time of a collector process of its own
(real server, real store, each record read back and signed) while a link ships to it; checking as that of this process.
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.fakes.centre import Sidecar
from tests.fakes.log_copy import SignedLog, interleaved

from leasehold.audit_copy import verify_copy

ROOT = Path(__file__).parents[2]
SHIPPED = 200_000
CHECKED = 200_000
ROUNDS = 3


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ingest_us(folder: Path) -> tuple[float, float]:
    """Collector's processor microseconds for one event, and events a second by the wall clock."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fakes.collector_process",
        str(folder),
        "c1",
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    while await process.stdout.readline() != b"ready\n":
        pass
    sidecar = Sidecar(f"unix:{folder / 'collector.sock'}")
    sidecar.emit(SHIPPED)
    before, started = cpu_seconds(process.pid), time.monotonic()
    async with sidecar:
        await sidecar.outbox.empty()
    used, took = cpu_seconds(process.pid) - before, time.monotonic() - started
    process.kill()
    await process.communicate()
    return used / SHIPPED * 1e6, SHIPPED / took


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
        each, rate = asyncio.run(ingest_us(Path(folder)))
        sys.stdout.write(
            f"\naudit log, events of 300 bytes\n"
            f"taken in over the wire, read back and signed: {each:.1f} us of the collector's processor each, "
            f"{1e6 / each:,.0f}/s on one core ({rate:,.0f}/s by the wall clock, beside the sender)\n"
        )
    with tempfile.TemporaryDirectory(prefix="leasehold-bench-") as folder:
        each = check_us(Path(folder))
        sys.stdout.write(f"checked offline: {each:.1f} us each, {1e6 / each:,.0f}/s on one core\n")


if __name__ == "__main__":
    measure()
