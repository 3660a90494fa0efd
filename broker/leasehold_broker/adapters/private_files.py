"""Files that hold secrets. Owns their permissions, atomic replacement and lock; refuses what others can read.

A file appears whole or not at all: written under another name, synced, renamed, and the folder synced.
"""

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path


class NotPrivateError(Exception):
    """A file or folder is not as private as it must be; the message says what to change."""


def read_private(path: Path, bytes_max: int) -> bytes:
    """The content of a file that only its owner may read.

    A file of root's may also be readable by its group: so Kubernetes mounts a secret for a pod's own group.

    Raises:
        NotPrivateError: others may read or write it, it is another user's, too large, or no regular file.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            message = f"{path} is not a regular file"
            raise NotPrivateError(message)
        by_root = status.st_uid == 0 != os.geteuid()
        if status.st_mode & (0o037 if by_root else 0o077):
            message = f"{path} may be used by others (mode {stat.S_IMODE(status.st_mode):04o}); run chmod 600 on it"
            raise NotPrivateError(message)
        if not by_root and status.st_uid != os.geteuid():
            message = f"{path} belongs to uid {status.st_uid}; it must belong to uid {os.geteuid()}"
            raise NotPrivateError(message)
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        message = f"{path} is larger than {bytes_max} bytes"
        raise NotPrivateError(message)
    return data


def check_folder(folder: Path) -> None:
    """Check that nobody else can put files into a folder.

    Raises:
        NotPrivateError: others may write to it, or it is another user's.
        OSError: it cannot be looked at.
    """
    status = folder.stat()
    if status.st_mode & 0o022:
        message = (
            f"the folder {folder} may be written by others (mode {stat.S_IMODE(status.st_mode):04o}); "
            "run chmod 700 on it"
        )
        raise NotPrivateError(message)
    if status.st_uid not in {0, os.geteuid()}:
        message = f"the folder {folder} belongs to uid {status.st_uid}; use one of your own"
        raise NotPrivateError(message)


def make_folder(folder: Path) -> None:
    """Create the folder for its owner alone, where it is missing, and check it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_folder(folder)


def create_private(path: Path, data: bytes) -> None:
    """Create a file for its owner alone, durably.

    Raises:
        FileExistsError: it exists; nothing is changed.
    """
    fresh = _written_aside(path, data)
    try:
        # A link fails where a rename would replace.
        os.link(fresh, path)
    finally:
        fresh.unlink()
    _sync_folder(path.parent)


def replace_private(path: Path, data: bytes) -> None:
    """Replace a file in one step, durably: a crash leaves the old one or the new one."""
    fresh = _written_aside(path, data)
    try:
        fresh.rename(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the one writer's lock that belongs to a file; waits for another writer to end."""
    lock = path.with_name(path.name + ".lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep_aside(path: Path) -> None:
    """Remove what writers that died have left beside a file. For who alone writes it: it has no lock, or holds it."""
    for left in path.parent.glob(f".{path.name}.*.new"):
        left.unlink(missing_ok=True)


def _written_aside(path: Path, data: bytes) -> Path:
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    return fresh


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
