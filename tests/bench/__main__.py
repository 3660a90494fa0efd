"""Measures a real sidecar with authentication, budgets and durable audit on; `make bench`.

Method: collector, sidecar, origin and load are processes of one machine; the sidecar has a core of its own. Each
through-the-egress figure stands beside the same load sent to the origin directly, in the same run. Requests per second
per core are computed from the sidecar's own CPU time, so that they do not depend on how fast the load is.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
import uuid
from pathlib import Path

import grpc
import uvloop
from tests.bench.audit_probe import measure as measure_audit
from tests.bench.ingest import measure as measure_ingest
from tests.bench.ledger_probe import measure as measure_ledger
from tests.bench.load import at, load
from tests.bench.store_probe import measure as measure_store
from tests.bench.world import SIDECAR, SUBJECT, BenchStage

from leasehold.v1 import lease_service_pb2, lease_service_pb2_grpc, types_pb2

ACQUIRERS = (1, 16)


async def _measure(root: Path, seconds: float) -> None:
    async with BenchStage(root) as stage:
        token = stage.workload("bench", SUBJECT, team="research").read_text().strip()
        async with grpc.aio.insecure_channel(stage.sidecar_target(SIDECAR)) as channel:
            leases = lease_service_pb2_grpc.LeaseServiceStub(channel)
            metadata = (("leasehold", "1"), ("authorization", f"Bearer {token}"))
            asked = time.perf_counter()
            first = await _acquire(leases, metadata)
            first_seconds = time.perf_counter() - asked
            started = stage.started_seconds[SIDECAR]
            _say(f"start to healthy: {started:.2f} s; to the first lease: {started + first_seconds:.2f} s")
            _say(f"resident then: {stage.resident_mb():.0f} MB")
            _say(stage.pin())
            await _egress(stage, first, seconds)
            await _acquisitions(stage, leases, metadata, seconds)
            _say(f"resident after all of it: {stage.resident_mb():.0f} MB")


async def _egress(stage: BenchStage, lease: lease_service_pb2.AcquireLeaseResponse, seconds: float) -> None:
    origin = int(stage.origin.rpartition(":")[2])
    base = next(endpoint.base_url for endpoint in lease.endpoints if endpoint.provider == "anthropic")
    port = int(base.split(":")[2].partition("/")[0])
    _say("\nkind  conc   direct/s  egress/s  added p50 ms  added p99 ms  cpu us/request  requests/s per core")
    for stream in (False, True):
        for concurrency in (1, 16, 64):
            await load(port, "/anthropic", lease.lease_token, concurrency, 0.3, stream=stream)
            direct = await load(origin, "", "", concurrency, seconds, stream=stream)
            before = stage.cpu_seconds()
            through = await load(port, "/anthropic", lease.lease_token, concurrency, seconds, stream=stream)
            each = (stage.cpu_seconds() - before) / len(through)
            _say(
                f"{'SSE ' if stream else 'JSON'}  {concurrency:4}  {len(direct) / seconds:9.0f} "
                f"{len(through) / seconds:9.0f}  {at(through, 0.5) - at(direct, 0.5):12.3f}  "
                f"{at(through, 0.99) - at(direct, 0.99):12.3f}  {each * 1e6:14.1f}  {1 / each:19.0f}"
            )


async def _acquire(
    leases: "lease_service_pb2_grpc.LeaseServiceAsyncStub", metadata: tuple[tuple[str, str], ...]
) -> lease_service_pb2.AcquireLeaseResponse:
    request = lease_service_pb2.AcquireLeaseRequest(
        request_id=str(uuid.uuid4()), scopes=[types_pb2.Scope(provider="anthropic")]
    )
    return await leases.AcquireLease(request, metadata=metadata, timeout=10)


async def _acquisitions(
    stage: BenchStage,
    leases: "lease_service_pb2_grpc.LeaseServiceAsyncStub",
    metadata: tuple[tuple[str, str], ...],
    seconds: float,
) -> None:
    _say("\nacquirers  acquisitions/s  p50 ms  p99 ms  cpu us/acquisition  acquisitions/s per core")
    for acquirers in ACQUIRERS:
        took: list[float] = []
        until = time.perf_counter() + seconds

        async def acquire(took: list[float] = took, until: float = until) -> None:
            while time.perf_counter() < until:
                start = time.perf_counter()
                await _acquire(leases, metadata)
                took.append(time.perf_counter() - start)

        before = stage.cpu_seconds()
        await asyncio.gather(*(acquire() for _ in range(acquirers)))
        each = (stage.cpu_seconds() - before) / len(took)
        took.sort()
        _say(
            f"{acquirers:9}  {len(took) / seconds:14.0f}  {at(took, 0.5):6.2f}  {at(took, 0.99):6.2f}  "
            f"{each * 1e6:18.0f}  {1 / each:23.0f}"
        )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def turn_us() -> float:
    """What this interpreter on this machine needs for `x += i`: what every other figure stands against."""
    turns, total, best = 1_000_000, 0, float("inf")
    for _ in range(5):
        started = time.process_time()
        for number in range(turns):
            total += number
        best = min(best, time.process_time() - started)
    return best / turns * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="leasehold-bench-") as folder, contextlib.suppress(KeyboardInterrupt):
        _say(f"a turn of a bare loop: {turn_us():.3f} us")
        uvloop.run(_measure(Path(folder), seconds))
        measure_ledger()
        measure_store()
        measure_ingest()
        measure_audit()


if __name__ == "__main__":
    main()
