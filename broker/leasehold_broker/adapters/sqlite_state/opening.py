"""How the state database is opened. Owns the private directory, its lock, the pragmas and deadlines after a reboot.

Refuses a directory that others can enter and a file that is damaged; repairs nothing.
"""

import fcntl
import os
import secrets
import sqlite3
from dataclasses import replace
from pathlib import Path

from leasehold_broker.adapters.sqlite_state import rows
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.time import Instant


def damaged(path: Path, error: Exception) -> RuntimeError:
    """The one error for a file that cannot be read, with what to do."""
    return RuntimeError(
        f"{path} is damaged ({error}); move the state directory away for the operators to look at, and start with an "
        "empty one: its leases are lost and must be acquired again"
    )


def lock_directory(directory: Path) -> int:
    """Make or check the private directory and take its lock; returns the descriptor that holds it.

    Raises:
        RuntimeError: the directory is another user's or open to others, or another process has the lock.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid != os.geteuid():
        message = f"{directory} belongs to user {found.st_uid}; give the sidecar a state directory of its own"
        raise RuntimeError(message)
    if found.st_mode & 0o077:
        message = f"{directory} can be entered by others; run: chmod 700 {directory}"
        raise RuntimeError(message)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        message = f"another sidecar uses {directory}; stop it, or give this one a state directory of its own"
        raise RuntimeError(message) from None
    return descriptor


def open_database(path: Path) -> sqlite3.Connection:
    """The database, owned by this process alone, synced at every commit, with its tables.

    Raises:
        sqlite3.Error: the file is damaged or unreadable.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.executescript(rows.SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def secret_meta(connection: sqlite3.Connection, name: str, size: int) -> bytes:
    """Secret bytes of this database, made when they are first asked for."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return bytes(row[0])
    value = secrets.token_bytes(size)
    connection.execute("INSERT INTO meta (name, value) VALUES (?, ?)", (name, value))
    return value


def next_epoch(connection: sqlite3.Connection) -> str:
    """Counts this life of the store, and names it."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'lives'").fetchone()
    lives = int(row[0]) + 1 if row else 1
    connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('lives', ?)", (str(lives).encode(),))
    return f"{lives:08d}-{secrets.token_hex(8)}"


def measure_outbox(connection: sqlite3.Connection, overhead_bytes: int) -> tuple[int, int]:
    """The last position that was ever used, and the bytes of what waits."""
    position = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    (size,) = connection.execute("SELECT coalesce(sum(length(body) + ?), 0) FROM outbox", (overhead_bytes,)).fetchone()
    return (position[0] if position else 0), size


def boot_id() -> str:
    """Names this boot of the machine; a fresh name where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return secrets.token_hex(16)


def translated(lease: Lease, now: Instant) -> Lease:
    """Deadlines of an earlier boot, by their wall-clock labels; a clock set back never makes a life longer."""
    life_ms = lease.max_expire_wall_ms - lease.create_wall_ms
    left_ms = min(max(0, lease.expire_wall_ms - now.wall_ms), lease.ttl_seconds * 1000)
    most_ms = min(max(0, lease.max_expire_wall_ms - now.wall_ms), life_ms)
    return replace(
        lease,
        expire_ns=now.boot_ns + left_ms * 1_000_000,
        max_expire_ns=now.boot_ns + max(left_ms, most_ms) * 1_000_000,
    )
