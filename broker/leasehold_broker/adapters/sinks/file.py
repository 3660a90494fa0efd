"""JSON lines in a file of our own. Owns appending, syncing and following a rotation; deletes nothing.

The file is opened for each batch by its name: one that was moved away or deleted is missed at once and made anew.
"""

import errno
import os
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from leasehold_broker.adapters.sinks.encoding import Format, encode
from leasehold_broker.adapters.sinks.own_thread import OwnThread
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.ports.event_sink import SinkFailedError

SECONDS_MAX = 30.0
"""How long a batch may take before the disk counts as hung."""


class FileSink:
    """Implements `EventSink`."""

    def __init__(self, name: str, path: Path, form: Format, seconds_max: float = SECONDS_MAX) -> None:
        """Append there, for the sink of this name; the file is made for its owner alone, its folder must exist."""
        self._path = path
        self._form = form
        self._thread = OwnThread(f"sink-{name}")
        self._seconds_max = seconds_max

    async def deliver(self, records: Sequence[StoredRecord]) -> None:
        """As the port says; synced on return."""
        data = b"".join(encode(stored, self._form) + b"\n" for stored in records)
        try:
            await self._thread.run(partial(self._append, data), self._seconds_max)
        except OSError as error:
            message = f"{self._path} cannot be written: {error.strerror}"
            raise SinkFailedError(message) from None

    async def close(self) -> None:
        """Nothing is open."""

    def _append(self, data: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file, so nothing tells whether it keeps what is written")
            size = found.st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data  # what a crash cut off stays visible as a broken line of its own
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
