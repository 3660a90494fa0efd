"""Disk that is kept for revocations: a file beside the log, given back piece by piece when a write finds no room.

Owns the file, and the judgement whether the disk is low. Low begins when there is less room than the reserve is large
(as `statvfs` tells, without what only root may use), or when a write found none, whatever `statvfs` says: a quota may
be at its end. It ends when the reserve is whole and as much again was there to be taken, which no quota can lie about.
Lives on the writer's thread; `state` may be read from any.
"""

import errno
import os
import sqlite3
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.write_rank import WriteRank
from leasehold_broker.ports.log_disk import DiskState

PIECES = 8
LOOK_SECONDS = 0.25
LOW_LOOK_SECONDS = 1.0
CHECKPOINT_PAGES = 4000
"""Of the journal, before they are brought to their places: 16 MiB."""
CHECKPOINT_PAGES_LOW = 250
OPENING_BYTES = 1 << 20
"""What opening the log may need before anything can be tried again: its shared memory, the lock, the key."""
WAL_BYTES_MAX = 64 << 20
"""A journal beyond this was left by a batch that found no room: its space is given back."""
_CANNOT_ALLOCATE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
_ZEROS = b"\0" * (1 << 20)
_LACKS_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}
"""SQLite tells a quota that is used up as a failed write."""


class DiskReserve:
    """The reserve beside one log."""

    def __init__(self, log: Path, wanted_bytes: int) -> None:
        """Nothing is touched before `open`; `wanted_bytes` 0: nothing is kept, and the disk is never called low."""
        self._path = log.with_name("reserve")
        self._wal = log.with_name(f"{log.name}-wal")
        self._wanted = wanted_bytes
        self._piece = -(-wanted_bytes // PIECES)
        self._kept = 0
        self._found_none = False
        self._frugal = False
        self._next_look = 0.0
        self.state = DiskState(low=False, room_bytes=0, reserve_bytes=0, reserve_bytes_wanted=wanted_bytes)

    def open(self) -> None:
        """Before the log is opened: on a disk without any room, a piece is given back for it.

        Raises:
            OSError: the file cannot be used.
        """
        if not self._wanted:
            self._path.unlink(missing_ok=True)
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._kept = os.fstat(descriptor).st_size
        os.close(descriptor)
        if self._kept > self._wanted:
            self._cut(self._wanted)
        if self._room() < OPENING_BYTES:
            self._cut(max(0, self._kept - self._piece))
        self._judge(0)

    def lowest(self) -> WriteRank:
        """The lowest rank that may be written now."""
        state = self.state
        if not state.low:
            return WriteRank.EVENTS
        spent = state.reserve_bytes * 2 <= self._wanted and state.room_bytes < self._piece
        return WriteRank.REVOCATIONS if spent else WriteRank.SESSIONS

    def look_soon(self) -> None:
        """The next `look` is not put off; told from any thread."""
        self._next_look = 0.0

    def look(self, connection: sqlite3.Connection) -> None:
        """Look at the disk, at most every LOOK_SECONDS; make the reserve whole where there is room.

        Outside of any transaction.
        """
        if not self._wanted or time.monotonic() < self._next_look:
            return
        pages = connection.execute("PRAGMA freelist_count").fetchone()[0]
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        self._judge(pages * page_bytes)
        low = self.state.low
        if low is not self._frugal:
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES_LOW if low else CHECKPOINT_PAGES}")
            if low:
                # What is in the journal gets to its place while there is room for it. The journal's own space is then
                # used again and again, and is nobody else's.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._frugal = low
        if low and self._wal.stat().st_size > WAL_BYTES_MAX:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._next_look = time.monotonic() + (LOW_LOOK_SECONDS if self.state.low else LOOK_SECONDS)

    def ran_out(self, ranks: Collection[WriteRank]) -> WriteRank | None:
        """A group of these ranks found no room. The lowest rank to try again with; None: there is nothing to give.

        First without what may wait; then upon a piece of the reserve, which for sessions ends at its half.
        """
        self._found_none = bool(self._wanted)
        self._next_look = 0.0
        self._publish(self._room(), low=bool(self._wanted))
        most, least = max(ranks), min(ranks)
        if most is WriteRank.EVENTS:
            return None
        if least is WriteRank.EVENTS:
            return WriteRank.SESSIONS
        half = self._kept * 2 <= self._wanted
        if half and least is WriteRank.SESSIONS:
            return WriteRank.REVOCATIONS if most is WriteRank.REVOCATIONS else None
        if not self._kept:
            return None
        self._cut(max(0, self._kept - self._piece))
        self._publish(self._room(), low=True)
        return least

    def refusal(self) -> Refusal:
        """Of a write that has to wait."""
        state = self.state
        return Refusal(
            Reason.AUDIT_DISK_LOW,
            "the collector's disk is full; what is left of it is kept for revocations, and events are kept where they "
            "are until its operators have made room",
            detail=f"{state.room_bytes} bytes of room, {state.reserve_bytes} of {self._wanted} in reserve",
            retry_after_seconds=5.0,
        )

    def _judge(self, inside: int) -> None:
        """`inside`: bytes that the log's file has free within itself."""
        room = self._room()
        spare = self._wanted + self._wanted // 4
        if room >= self._wanted - self._kept + spare and (self._kept < self._wanted or self._found_none):
            # Taken, not only looked at: as much again must be there besides.
            if self._take(2 * self._wanted):
                self._found_none = False
            self._cut(min(self._kept, self._wanted))
            room = self._room()
        enough = spare if self.state.low else self._wanted
        whole = self._kept == self._wanted and not self._found_none
        self._publish(room, low=not whole or room + inside < enough)

    def _publish(self, room: int, *, low: bool) -> None:
        self.state = DiskState(low, room, self._kept, self._wanted)

    def _room(self) -> int:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize

    def _take(self, size: int) -> bool:
        """Let the file have this size, for real; or leave it as it was."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                os.posix_fallocate(descriptor, self._kept, size - self._kept)
            except OSError as error:
                if error.errno not in _CANNOT_ALLOCATE:
                    raise
                _write_zeros(descriptor, self._kept, size)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, self._kept)
            return False
        finally:
            os.close(descriptor)
        self._kept = size
        return True

    def _cut(self, size: int) -> None:
        """Give back all beyond this size; synced, since some file systems hand space out again only then."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.ftruncate(descriptor, size)
            with suppress(OSError):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._kept = size


def lacks_room(error: sqlite3.Error) -> bool:
    """True when it may be for lack of room that SQLite failed."""
    return getattr(error, "sqlite_errorcode", None) in _LACKS_ROOM


def _write_zeros(descriptor: int, begin: int, end: int) -> None:
    """Where a file system cannot allocate without writing."""
    while begin < end:
        begin += os.pwrite(descriptor, _ZEROS[: end - begin], begin)
