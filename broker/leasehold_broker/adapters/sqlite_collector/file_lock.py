"""One process for one file. Owns the lock beside it, and that the file is its owner's alone."""

import fcntl
import os
from pathlib import Path


class StoreBusyError(RuntimeError):
    """Another process has this store open."""


def lock(path: Path) -> int:
    """A lock beside the file, held while the process lives: two writers would fork the collector's own chain."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        message = f"{path} is open in another process; stop that collector first"
        raise StoreBusyError(message) from None
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return descriptor
