"""The same through replicas over one PostgreSQL: kill -9 of the sidecar and the replicas, crashes of the server.

    python -m tests.soak.scale --events 1000000 --replicas 3 --seed 7 [--nats]

With --nats records go through a NATS JetStream, which is killed with -9 as well; with --nats-servers 3 through three
that keep each batch together, of which one at a time is killed.
Each life of the sidecar ships to another replica, so the new one gets what the last one may still be storing. What must
hold in the end is what tests/soak/audit.py says.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

from tests.fakes import nats, postgres
from tests.fakes.bus import BusReplica
from tests.fakes.centre import ORIGIN
from tests.fakes.nats import NatsServer
from tests.fakes.replicas import shared_key
from tests.fakes.rpc import SystemClock
from tests.soak.audit import Soak, folder_of_a_run

from leasehold_broker.adapters.checkpoint_key import open_checkpoint_key
from leasehold_broker.adapters.nats_bus import NatsAt
from leasehold_broker.adapters.postgres_collector import PostgresAt, open_store
from leasehold_broker.flows.publish_checkpoint import PublishCheckpoint

SCHEMA = "soak"


class ScaleSoak(Soak):
    """One run."""

    def __init__(
        self,
        folder: Path,
        events: int,
        seed: int,
        life_seconds: float,
        database: postgres.Cluster,
        replicas: int,
        bus: Sequence[NatsServer] = (),
    ) -> None:
        """As the other; with this database, so many replicas, and these NATS servers before them, or none."""
        super().__init__(folder, events, seed, life_seconds)
        self._database = database
        self._bus = bus
        self._servers_down = threading.Lock()
        """Held from the crash of a server until it answers again, also when the run ends in between."""
        self._names = [f"collector-{number}" for number in range(replicas)]
        key = shared_key(folder, ORIGIN)
        (folder / "checkpoint.key").write_bytes(key.read_bytes())
        (folder / "checkpoint.key").chmod(0o600)

    def _centre(self) -> list[Coroutine[None, None, None]]:
        replicas = [self._keep_killing(name, self._replica(name)) for name in self._names]
        servers = {"PostgreSQL": self._crash}
        if self._bus:
            servers["nats-server"] = self._kill_bus
        return [*replicas, *(self._keep_crashing(name, crash) for name, crash in servers.items())]

    def _checkpoint_copies(self) -> list[Path]:
        return [self._folder / name / "checkpoint" for name in self._names]

    @contextlib.asynccontextmanager
    async def _store(self):
        await asyncio.to_thread(self._all_up)
        opening = open_store(PostgresAt(self._database.server.url(), SCHEMA), "collector-check", "zz-check")
        async with opening as store:
            if self._bus:  # what was acknowledged last may still be on its way
                at = NatsAt(self._urls, SCHEMA, bytes_max=1 << 30, replicas=len(self._bus))
                async with BusReplica(store, at).running() as replica:
                    await replica.opened()
                    await replica.settled()
            # The replica that led was killed as well; what it had not signed, the next one signs.
            key = open_checkpoint_key(self._folder / "checkpoint.key", ORIGIN)
            publish = PublishCheckpoint(store, store, key, SystemClock(), _nowhere)
            await publish.start(None)
            await publish.step()
            yield store

    @property
    def _urls(self) -> tuple[str, ...]:
        return tuple(server.url_of_user for server in self._bus)

    def _replica(self, name: str):
        async def start(life: int) -> asyncio.subprocess.Process:
            arguments = (str(self._folder), name, f"c{life:06d}", self._database.server.url(), SCHEMA, *self._urls)
            return await self._process("tests.fakes.replica_process", *arguments)

        return start

    async def _sidecar(self, life: int) -> asyncio.subprocess.Process:
        del life
        target = f"unix:{self._folder / self._chance.choice(self._names) / 'collector.sock'}"
        return await self._process("tests.soak.emitter", str(self._folder), target, str(self._events))

    async def _keep_crashing(self, name: str, crash: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(1.0, 3 * self._longest))
            await asyncio.to_thread(crash)
            self.outcome.kills[name] += 1

    def _kill_bus(self) -> None:
        with self._servers_down:
            server = self._chance.choice(self._bus)
            server.kill()
            server.start()

    def _all_up(self) -> None:
        with self._servers_down:
            return

    def _crash(self) -> None:
        with self._servers_down:
            self._database.crash()
            self._database.start()


async def _nowhere(_note: bytes) -> str:
    """No copy."""
    return ""


def _bus(stack: contextlib.ExitStack, servers: int) -> list[NatsServer]:
    if servers > 1:
        return list(stack.enter_context(nats.cluster(servers)).servers.values())
    return [stack.enter_context(nats.running(sync_interval="2m"))] if servers else []


def main() -> None:
    """Run and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--life-seconds", type=float, default=12.0, help="longest life of a process")
    parser.add_argument("--nats", action="store_true", help="records go through a NATS JetStream")
    parser.add_argument(
        "--nats-servers", type=int, choices=(1, 3), help="the same through so many, each killed in turn"
    )
    asked = parser.parse_args()
    servers = asked.nats_servers or int(asked.nats)
    os.umask(0o077)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(folder_of_a_run())
        database = stack.enter_context(postgres.cluster())
        database.start()
        bus = _bus(stack, servers)
        soak = ScaleSoak(folder, asked.events, asked.seed, asked.life_seconds, database, asked.replicas, bus)
        outcome = asyncio.run(soak.run())
    kills = ", ".join(f"{count} of {name}" for name, count in sorted(outcome.kills.items()))
    sys.stdout.write(
        f"{outcome.committed} events told durable, {outcome.events} in the log, 0 lost, 0 doubled; kill -9: {kills}; "
        f"{outcome.lives} lives, all closed; {outcome.checkpoints} checkpoints held; {outcome.seconds:.0f} s\n"
    )


if __name__ == "__main__":
    main()
