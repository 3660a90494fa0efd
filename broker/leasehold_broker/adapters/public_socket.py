"""A listening Unix socket at a public path that nobody else can take over unseen.

Owns the folder's and the socket's modes, the lock against a second broker, the watch for a replaced socket, and tidying
up. Refuses a folder that others can write to: whoever can rename our socket can stand in for us.
"""

import errno
import fcntl
import os
import shutil
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

BACKLOG = 128
PATH_BYTES_MAX = 107
_STAGED_NAME_BYTES = len("/.xxxxxxxx/s")


class ListenError(Exception):
    """This address cannot be listened at safely. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class SocketPlace:
    """Where a public socket is, and who may reach it.

    Args:
        path: of the socket; its folder is made when missing.
        group: gid that may reach it; None for the owner alone.
        folder_mode: of a folder that we make; an existing one is checked, not changed.
        socket_mode: of the socket. The caller's uid is checked besides, by the kernel's word.
    """

    path: Path
    group: int | None = None
    folder_mode: int = 0o700
    socket_mode: int = 0o600


class PublicSocket:
    """One listening socket. Open it, hand `listener` to the event loop, ask `replaced()` now and then, close it."""

    def __init__(self, place: SocketPlace) -> None:
        """Lock, bind in a private folder, set modes, and only then publish under the public path.

        Raises:
            ListenError: unsafe folder, another broker, something else in the way, no permission.
        """
        self._place = place
        if len(os.fsencode(place.path.parent)) + _STAGED_NAME_BYTES > PATH_BYTES_MAX:
            raise _refused(place.path, "too long for a Unix socket; choose a shorter folder")
        _make_folder(place)
        self._lock = _locked(place.path)
        try:
            self.listener = _published(place)
        except BaseException:
            os.close(self._lock)
            raise
        found = place.path.lstat()
        self._identity = (found.st_dev, found.st_ino)

    def replaced(self) -> bool:
        """True when the path no longer leads to our socket: new connections go elsewhere, or nowhere."""
        try:
            found = self._place.path.lstat()
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._identity

    def close(self) -> None:
        """Stop listening; remove the path when it is still ours. The lock's file stays: locks stay exclusive."""
        if self._lock < 0:
            return
        if not self.replaced():
            self._place.path.unlink()
        self.listener.close()
        os.close(self._lock)
        self._lock = -1


def _make_folder(place: SocketPlace) -> None:
    folder = place.path.parent
    try:
        if not folder.exists():
            # Made private, widened only when owner and group are right: no moment in which a stranger could enter.
            folder.mkdir(mode=0o700, parents=True)
            if place.group is not None:
                os.chown(folder, -1, place.group)
            folder.chmod(place.folder_mode)
        found = folder.lstat()
    except OSError as fault:
        raise _failed(folder, "cannot be made", fault) from None
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(folder, "not a folder (a link is not followed); name the folder itself")
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = f"{stat.S_IMODE(found.st_mode):o}"
        raise _refused(
            folder,
            "others than this broker can write there; use a folder of its own with mode 700 or 750",
            f"owner {found.st_uid}, mode {mode}",
        )


def _locked(path: Path) -> int:
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as fault:
        raise _failed(lock, "cannot be opened", fault) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise _refused(path, "another broker listens here already; stop it first, or choose another path") from None
    return descriptor


def _published(place: SocketPlace) -> socket.socket:
    path = place.path
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise _refused(path, "something that is not a socket is in the way; remove it or choose another path")
    staging = Path(tempfile.mkdtemp(prefix=".", dir=path.parent))
    listener = socket.socket(socket.AF_UNIX)
    try:
        staged = staging / "s"
        listener.bind(str(staged))
        staged.chmod(place.socket_mode)
        if place.group is not None:
            os.chown(staged, -1, place.group)
        listener.listen(BACKLOG)
        listener.settimeout(0)
        # Takes the place of what a crashed broker left behind; the lock says that it is not a living one's.
        staged.rename(path)
    except OSError as fault:
        listener.close()
        raise _failed(path, "cannot be listened at", fault) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return listener


def _refused(path: Path, why: str, found: str = "") -> ListenError:
    return ListenError(f"{path}: {why}" + (f" (found: {found})" if found else ""))


def _failed(path: Path, what: str, fault: OSError) -> ListenError:
    return _refused(path, what, errno.errorcode.get(fault.errno or 0, "unknown error"))
