"""What a collector of replicas over PostgreSQL takes in: python -m tests.bench.scale_probe.

Batches of 200 events of 300 bytes from many streams, through the store of each replica (a process of its own; the wire
is measured in audit_probe): checked, hashed into the tree, copied, committed with synchronous_commit on, acknowledged.
Everything runs on this machine: the replicas, and PostgreSQL beside them.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.fakes import postgres
from tests.fakes.rpc import SystemClock
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.checkpoint_key import open_checkpoint_key
from leasehold_broker.adapters.postgres_collector import PostgresAt, open_store
from leasehold_broker.flows.publish_checkpoint import PublishCheckpoint

ROOT = Path(__file__).parents[2]
BATCH = 200
STREAMS = 64
EVENTS = 160_000
SIZE = """
SELECT pg_total_relation_size('bench.tiles') + sum(pg_total_relation_size(inhrelid)) FROM pg_inherits
WHERE inhparent IN ('bench.events'::regclass, 'bench.event_keys'::regclass)
"""
SERVER = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=512MB", "max_wal_size=4GB")


async def replica(url: str, name: str, events: int) -> None:
    """Take in so many events from streams of its own; prints when ready and what it took."""
    emitters = [Emitter(f"{name}-s{number}", "e1") for number in range(STREAMS)]
    batches = [[emitter.calls(BATCH) for _ in range(events // STREAMS // BATCH)] for emitter in emitters]
    async with open_store(PostgresAt(url, "bench"), name, "c1") as store:
        await store.append(f"{name}-warm", Emitter(f"{name}-warm").calls(1), 1)
        print("ready", flush=True)  # noqa: T201 - the parent waits for it
        await asyncio.to_thread(sys.stdin.readline)

        async def ship(own) -> None:
            for records in own:
                await store.append(records[0].stream, records, 1)

        before, started = time.process_time(), time.monotonic()
        await asyncio.gather(*(ship(own) for own in batches))
        took = time.monotonic() - started
        commits = store._appender.commits
        print(took, time.process_time() - before, commits, flush=True)  # noqa: T201 - the parent reads it


async def measure_replicas(database: postgres.Cluster, count: int) -> None:
    """So many replicas at once."""
    server = database.server
    server.sql("DROP SCHEMA IF EXISTS bench CASCADE; CHECKPOINT")
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.scale_probe", server.url(), f"collector-{number}", str(EVENTS // count),
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for number in range(count)
    ]  # fmt: skip
    for process in processes:
        assert await process.stdout.readline() == b"ready\n"
    before, started = server_cpu_seconds(database.pid), time.monotonic()
    for process in processes:
        process.stdin.write(b"go\n")
    said = [(await process.stdout.readline()).split() for process in processes]
    took = time.monotonic() - started
    served = server_cpu_seconds(database.pid) - before
    for process in processes:
        await process.communicate()
    taken = sum(int(one) for one in [EVENTS // count // STREAMS // BATCH * STREAMS * BATCH] * count)
    cpu = sum(float(one[1]) for one in said) / taken * 1e6
    commits = sum(int(one[2]) for one in said)
    size = int(server.sql(SIZE))
    sys.stdout.write(
        f"{count} replica(s): {taken / took:,.0f} events/s by the wall clock ({taken:,} events, {commits} commits); "
        f"each took {cpu:.1f} us of the replicas' processors and {served / taken * 1e6:.1f} us of PostgreSQL's, and "
        f"{size / taken:,.0f} bytes there\n"
    )
    sys.stdout.flush()


async def sign_us(database: postgres.Cluster) -> tuple[float, float]:
    """Processor microseconds for each event of the replica that leads, and of PostgreSQL: read back, hashed, signed."""
    with tempfile.TemporaryDirectory(prefix="leasehold-bench-") as folder:
        key = open_checkpoint_key(Path(folder) / "checkpoint.key", "bench")
        async with open_store(PostgresAt(database.server.url(), "bench"), "collector-signs", "c1") as store:
            publish = PublishCheckpoint(store, store, key, SystemClock(), _nowhere)
            await publish.start(None)
            served, used = server_cpu_seconds(database.pid), time.process_time()
            await publish.step()
            used, served = time.process_time() - used, server_cpu_seconds(database.pid) - served
            size = store.last_position()
    return used / size * 1e6, served / size * 1e6


async def _nowhere(_note: bytes) -> None:
    """No copy."""


def server_cpu_seconds(postmaster: int) -> float:
    """User and system time of a PostgreSQL: of the processes that run, and of those that have ended."""
    tick = os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    own = Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()
    total = sum(int(field) for field in own[11:15])
    for child in children:
        with contextlib.suppress(OSError):
            total += sum(
                int(field) for field in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
            )
    return total / tick


def measure() -> None:
    """Measure and print."""
    if postgres.installed() is None:
        sys.stdout.write("\nno PostgreSQL here: the scale engine is not measured\n")
        return
    sys.stdout.write(
        f"\nlog in PostgreSQL, events of 300 bytes in batches of {BATCH}, {os.cpu_count()} cores for all\n"
    )
    with postgres.cluster() as database, contextlib.suppress(KeyboardInterrupt):
        database.start(SERVER)
        for count in (1, 2):
            asyncio.run(measure_replicas(database, count))
        leads, serves = asyncio.run(sign_us(database))
    sys.stdout.write(
        f"read back, hashed anew and signed: {leads:.1f} us of the one replica that leads, and {serves:.1f} us of "
        "PostgreSQL's\n"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(replica(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    else:
        measure()
