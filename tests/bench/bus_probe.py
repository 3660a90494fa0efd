"""What replicas behind NATS JetStream take in: python -m tests.bench.bus_probe.

The path of production from the store's door on: each batch checked, decided, kept in JetStream and acknowledged; beside
it the replica that leads brings what is kept into PostgreSQL, in order, and commits. Two figures: *accepted* is until
the last acknowledgement, *in the log* until the last commit. Replicas, NATS and PostgreSQL run on this machine.
"""

import asyncio
import contextlib
import gc
import os
import sys
import time

import uvloop
from tests.bench.audit_probe import cpu_seconds
from tests.bench.scale_probe import BATCH, ROOT, SERVER, STREAMS, server_cpu_seconds
from tests.fakes import nats, postgres
from tests.fakes.bus import BusReplica
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.nats_bus import NatsAt
from leasehold_broker.adapters.postgres_collector import PostgresAt, open_store
from leasehold_broker.cli.process import GC_THRESHOLD
from leasehold_broker.domain.reasons import Refusal

EVENTS = 320_000
REPLICAS = 2


async def replica(url: str, bus: str, name: str, events: int) -> None:
    """Take in so many events from streams of its own; prints when ready, when all is acknowledged, and what it took."""
    emitters = [Emitter(f"{name}-s{number}", "e1") for number in range(STREAMS)]
    batches = [[emitter.calls(BATCH) for _ in range(events // STREAMS // BATCH)] for emitter in emitters]
    gc.freeze()  # as every process of ours does (cli/process.py)
    gc.set_threshold(GC_THRESHOLD)
    async with (
        open_store(PostgresAt(url, "bench"), name, "c1") as store,
        BusReplica(store, NatsAt((bus,), "bench")).running() as one,
    ):
        await one.opened()
        await one.append(f"{name}-warm", Emitter(f"{name}-warm").calls(1), 1)
        _say("ready")
        await asyncio.to_thread(sys.stdin.readline)

        async def ship(own) -> None:
            for records in own:
                await one.keep.append(records[0].stream, records, 1)

        before, started = time.process_time(), time.monotonic()
        await asyncio.gather(*(ship(own) for own in batches))
        _say(f"{time.monotonic() - started}")
        while one.keep.waiting:
            with contextlib.suppress(Refusal):
                await one.keep.committed(one.keep.kept_last)
        _say(f"{time.process_time() - before} {one.commit.taken} {store._appender.commits}")


async def measure_bus(database: postgres.Cluster, server: nats.NatsServer, sync_interval: str) -> None:
    """Replicas at once, on fresh servers."""
    url = database.server.url()
    database.server.sql("DROP SCHEMA IF EXISTS bench CASCADE; CHECKPOINT")
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.bus_probe", url, server.url_of_user, f"collector-{number}",
            str(EVENTS // REPLICAS), cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for number in range(REPLICAS)
    ]  # fmt: skip
    for process in processes:
        assert await process.stdout.readline() == b"ready\n"
    served, carried, started = server_cpu_seconds(database.pid), cpu_seconds(server.pid), time.monotonic()
    for process in processes:
        process.stdin.write(b"go\n")
    for process in processes:
        await process.stdout.readline()
    accepted = time.monotonic() - started
    said = [(await process.stdout.readline()).split() for process in processes]
    took = time.monotonic() - started
    served, carried = server_cpu_seconds(database.pid) - served, cpu_seconds(server.pid) - carried
    for process in processes:
        await process.communicate()
    taken = EVENTS // REPLICAS // STREAMS // BATCH * STREAMS * BATCH * REPLICAS
    used = sum(float(one[0]) for one in said)
    commits = sum(int(one[2]) for one in said)
    _say(
        f"{REPLICAS} replicas behind NATS (sync_interval {sync_interval}): {taken / accepted:,.0f} events/s accepted, "
        f"{taken / took:,.0f} events/s in the log ({taken:,} events, {commits} commits); each took "
        f"{used / taken * 1e6:.1f} us of the replicas' processors, {carried / taken * 1e6:.1f} us of NATS's and "
        f"{served / taken * 1e6:.1f} us of PostgreSQL's"
    )


def measure() -> None:
    """Measure and print."""
    if postgres.installed() is None or nats.installed() is None:
        _say("\nno PostgreSQL or no nats-server here: the bus is not measured")
        return
    what = f"events of 300 bytes in batches of {BATCH}, {os.cpu_count()} cores for all"
    _say(f"\nlog in PostgreSQL behind NATS JetStream, {what}")
    for sync_interval in ("2m", "always"):
        with postgres.cluster() as database, nats.running(sync_interval=sync_interval) as server:
            database.start(SERVER)
            asyncio.run(measure_bus(database, server, sync_interval))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        uvloop.run(replica(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        measure()
