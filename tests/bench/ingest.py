"""What collectors take in, from the wire to the signed log: python -m tests.bench.ingest [sqlite|postgres|nats].. [N].

Everything is a process of this machine: whole collectors behind gRPC (real stores; only tokens are verified in memory),
PostgreSQL, NATS, and one that is many sidecars (tests/bench/shippers.py), which has made its batches before. Three
times count from the first request: until the last batch is acknowledged, until the log has all, and until a checkpoint
over all of it is published (one a second at most, as configured by default). Processor time is of whole processes over
all of that, also for reading back and signing. N: events, many for what is sustained, not what a burst
of seconds is taken in at.
"""

import asyncio
import contextlib
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from tests.fakes import nats, postgres
from tests.fakes.centre import ORIGIN, Centre
from tests.fakes.replicas import Replica, shared_key

from leasehold_broker.adapters.postgres_collector import PostgresAt
from leasehold_broker.cli.process import run_tuned
from leasehold_broker.config.collector_nats import NatsBus

ROOT = Path(__file__).parents[2]
SIDECARS = 32
EVENTS = 320_000
CHECKPOINT_SECONDS = 1.0
POLL_SECONDS = 0.02
SCHEMA = "bench"
SERVER = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=512MB", "max_wal_size=4GB")
SIZE = """
SELECT pg_total_relation_size('bench.tiles') + sum(pg_total_relation_size(inhrelid)) FROM pg_inherits
WHERE inhparent IN ('bench.events'::regclass, 'bench.event_keys'::regclass)
"""
Sizes = Callable[[], Awaitable[tuple[int, int]]]
"""Records in the log, and records under its newest checkpoint."""


async def serve(folder: Path, name: str, url: str, bus: str) -> None:
    """One collector, until killed: over a file, or over this PostgreSQL, behind this NATS ("" for none)."""
    async with contextlib.AsyncExitStack() as stack:
        if url:
            at = NatsBus((bus,), SCHEMA, None, None, None, 4 << 30, 1) if bus else None
            replica = Replica(
                folder / name, PostgresAt(url, SCHEMA), name, "c1", key=folder / "shared.key", bus=at,
                sidecars=SIDECARS, checkpoint_seconds=CHECKPOINT_SECONDS,
            )  # fmt: skip
            await stack.enter_async_context(replica)
            while bus and not replica.centre.opened.bus.keep.open:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(POLL_SECONDS)
        else:
            (folder / name).mkdir()
            centre = Centre(folder / name, "c1", sidecars=SIDECARS, checkpoint_seconds=CHECKPOINT_SECONDS)
            await stack.enter_async_context(centre)
        _say("ready")
        await asyncio.Event().wait()


@dataclass
class Run:
    """One run: what there is beside the collectors, and what came out."""

    what: str
    events: int
    collectors: int = 1
    cpu_of: dict[str, Callable[[], float]] = field(default_factory=dict)

    async def measure(self, folder: Path, url: str, bus: str, sizes: Sizes) -> None:
        """Start, ship, wait, print."""
        async with contextlib.AsyncExitStack() as stack:
            names = [f"collector-{number}" for number in range(self.collectors)]
            serving = [_child("tests.bench.ingest", "serve", str(folder), name, url, bus) for name in names]
            servers = [await stack.enter_async_context(one) for one in serving]
            targets = [f"unix:{folder / name / 'collector.sock'}" for name in names]
            shippers = await stack.enter_async_context(
                _child("tests.bench.shippers", str(SIDECARS), str(self.events), *targets)
            )
            events = self.events // SIDECARS * SIDECARS
            cpu_of = {"collectors": lambda: sum(cpu_seconds(one.pid) for one in servers), **self.cpu_of}
            before = {name: cpu() for name, cpu in cpu_of.items()}
            began = time.monotonic()
            shippers.stdin.write(b"go\n")
            reached: dict[str, float] = {}
            while len(reached) < 2:
                for name, size in zip(("log", "signed"), await sizes(), strict=True):
                    if size >= events and name not in reached:
                        reached[name] = time.monotonic() - began
                await asyncio.sleep(POLL_SECONDS)
            used = {name: cpu() - before[name] for name, cpu in cpu_of.items()}
            accepted, sender = (float(one) for one in (await shippers.stdout.readline()).split())
            used["sender"] = sender
        wall = {"accepted": accepted, **reached}
        rates = ", ".join(f"{events / seconds:,.0f} {name}" for name, seconds in wall.items())
        each = ", ".join(f"{name} {seconds / events * 1e6:.1f}" for name, seconds in used.items())
        ours = sum(used.values()) - sender
        _say(
            f"{self.what}: events/s {rates}; us of processor for each: {each}; without the sender "
            f"{ours / events * 1e6:.1f}, so {events / ours:,.0f}/s on one core"
        )


@contextlib.asynccontextmanager
async def _child(module: str, *words: str):
    """A process that has said that it is ready, until it is killed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words, cwd=ROOT, stdin=pipe, stdout=pipe
    )
    try:
        while (line := await process.stdout.readline()) != b"ready\n":
            assert line, f"{module} ended before it was ready"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def measure_sqlite(events: int) -> None:
    """One collector over a file."""
    with tempfile.TemporaryDirectory(prefix="leasehold-bench-") as home:
        file = Path(home) / "collector-0" / "collector.db"

        async def sizes() -> tuple[int, int]:
            with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as store:
                found = store.execute(
                    "SELECT (SELECT max(position) FROM events), (SELECT max(size) FROM checkpoints)"
                ).fetchone()
            return found[0] or 0, found[1] or 0

        await Run("SQLite", events).measure(Path(home), "", "", sizes)


async def measure_postgres(collectors: int, sync_interval: str, events: int) -> None:
    """Replicas over one PostgreSQL; behind a NATS that syncs so often ("": without one)."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leasehold-bench-")))
        shared_key(home, ORIGIN)
        database = stack.enter_context(postgres.cluster())
        database.start(SERVER)
        url, bus = database.server.url(), ""
        run = Run(f"PostgreSQL, {collectors} replica(s)", events, collectors)
        run.cpu_of["PostgreSQL"] = lambda: server_cpu_seconds(database.pid)
        if sync_interval:
            server = stack.enter_context(nats.running(sync_interval=sync_interval))
            bus = server.url_of_user
            run.what += f" behind NATS (sync_interval {sync_interval})"
            run.cpu_of["NATS"] = lambda: cpu_seconds(server.pid)
        reading = await asyncpg.connect(url, timeout=60)

        async def sizes() -> tuple[int, int]:
            found = await reading.fetchrow(
                "SELECT (SELECT size FROM bench.log_head), (SELECT max(size) FROM bench.checkpoints)"
            )
            return found[0], found[1] or 0

        await run.measure(home, url, bus, sizes)
        _say(f"    {int(await reading.fetchval(SIZE)) / events:,.0f} bytes for each in PostgreSQL")
        await reading.close()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def server_cpu_seconds(postmaster: int) -> float:
    """The same of a PostgreSQL: of the processes that run, and of those that have ended."""
    own = Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()
    total = sum(int(field) for field in own[11:15]) / os.sysconf("SC_CLK_TCK")
    for child in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split():
        with contextlib.suppress(OSError):
            total += cpu_seconds(int(child))
    return total


def measure(engines: tuple[str, ...] = ("sqlite", "postgres", "nats"), events: int = EVENTS) -> None:
    """Measure and print."""
    _say(f"\n{events:,} events of 300 bytes from {SIDECARS} sidecars, {os.cpu_count()} cores for all")
    if "sqlite" in engines:
        asyncio.run(measure_sqlite(events))
    if postgres.installed() is None:
        _say("no PostgreSQL here: make .venv/servers.stamp")
        return
    if "postgres" in engines:
        for collectors in (1, 2):
            asyncio.run(measure_postgres(collectors, "", events))
    if "nats" in engines and nats.installed() is not None:
        for collectors, sync_interval in ((2, "2m"), (3, "2m"), (2, "always")):
            asyncio.run(measure_postgres(collectors, sync_interval, events))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        run_tuned(serve(Path(sys.argv[2]), *sys.argv[3:]))
    else:
        counts = [int(word) for word in sys.argv[1:] if word.isdecimal()]
        engines = tuple(word for word in sys.argv[1:] if not word.isdecimal())
        measure(engines or ("sqlite", "postgres", "nats"), *counts)
