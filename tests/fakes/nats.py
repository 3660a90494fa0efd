"""A real NATS server with JetStream for tests: on loopback, with a user, its files thrown away."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nats
from tests.fakes.ports import free_port

USER, PASSWORD = "collector", "collector-of-the-tests"
START_SECONDS_MAX = 60.0
CONFIG = """
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{folder}/data", sync_interval: {sync_interval} }}
{more}
"""
CLUSTERED = """
server_name: {name}
cluster {{ name: tests, listen: "127.0.0.1:{port}", routes: [{routes}] }}
"""
WITH_USER = """authorization {{ user: "{user}", password: "{password}" }}"""


def installed() -> Path | None:
    """Where the server is, or None (then its tests are skipped: `make .venv/nats.stamp` brings it)."""
    unpacked = Path(sys.prefix) / "nats" / "embedded_nats" / "bin" / "nats-server"
    return unpacked if unpacked.exists() else None


class NatsServer:
    """A server's files, and the server over them, which may be killed and started again."""

    def __init__(self, folder: Path, *, sync_interval: str = "always", more: str | None = None) -> None:
        """Nothing runs yet.

        Args:
            folder: for its files.
            sync_interval: as in the server's own configuration.
            more: lines of it; a user with a password when left out.
        """
        self.folder = folder
        self.port = free_port()
        more = WITH_USER.format(user=USER, password=PASSWORD) if more is None else more
        self._config = folder / "server.conf"
        self._config.write_text(CONFIG.format(port=self.port, folder=folder, sync_interval=sync_interval, more=more))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For a client library."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def url_of_user(self) -> str:
        """The same, as the user of the tests."""
        return f"nats://{USER}:{PASSWORD}@127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the server that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Return once it listens.

        Raises:
            RuntimeError: it does not.
        """
        binary = installed()
        assert binary is not None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([binary, "-c", self._config], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        message = f"nats-server did not start: {(self.folder / 'log').read_text()[-2000:]}"
        raise RuntimeError(message)

    def kill(self) -> None:
        """As kill -9 does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """In peace."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None


@contextlib.contextmanager
def running(*, sync_interval: str = "always", more: str | None = None) -> Iterator[NatsServer]:
    """A server, from when it listens until it is thrown away."""
    with tempfile.TemporaryDirectory(prefix="leasehold-nats-") as home:
        server = NatsServer(Path(home), sync_interval=sync_interval, more=more)
        try:
            server.start()
            yield server
        finally:
            server.kill()


class NatsCluster:
    """Servers that keep each message together, on loopback; each may be killed and started again."""

    def __init__(self, folder: Path, servers: int) -> None:
        """Nothing runs yet."""
        self.routes = [free_port() for _ in range(servers)]
        routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in self.routes)
        self.servers: dict[str, NatsServer] = {}
        for number, port in enumerate(self.routes):
            name = f"n{number}"
            (folder / name).mkdir()
            more = CLUSTERED.format(name=name, port=port, routes=routes) + WITH_USER.format(
                user=USER, password=PASSWORD
            )
            self.servers[name] = NatsServer(folder / name, more=more)

    @property
    def urls_of_user(self) -> tuple[str, ...]:
        """For a client library: every server, as the user of the tests."""
        return tuple(server.url_of_user for server in self.servers.values())

    async def leader(self, stream: str) -> str:
        """The name of the server that leads this stream, once one does."""
        connection = await nats.connect(list(self.urls_of_user), connect_timeout=5, max_reconnect_attempts=1000)
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                while True:
                    with contextlib.suppress(nats.errors.Error):
                        found = await connection.jetstream(timeout=2).stream_info(stream)
                        if found.cluster is not None and found.cluster.leader in self.servers:
                            return str(found.cluster.leader)
                    await asyncio.sleep(0.1)
        finally:
            await connection.close()


@contextlib.contextmanager
def cluster(servers: int = 3) -> Iterator[NatsCluster]:
    """Servers that know each other, from when they listen until they are thrown away."""
    with tempfile.TemporaryDirectory(prefix="leasehold-nats-") as home:
        made = NatsCluster(Path(home), servers)
        try:
            for server in made.servers.values():
                server.start()
            yield made
        finally:
            for server in made.servers.values():
                server.kill()
