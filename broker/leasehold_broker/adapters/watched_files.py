"""Files that decide something while the process runs: read safely, watched, taken as a whole or not at all.

With any complaint about a new version the old one stays in force, and the complaints are handed on. Files that others
may write are refused: whoever writes them decides.
"""

import asyncio
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Generic, TypeVar

POLL_SECONDS: Final = 1.0

T = TypeVar("T")
Fingerprint = tuple[object, ...]


class FilesRefusedError(Exception):
    """A version cannot be used: everything that is wrong with it."""

    def __init__(self, complaints: Iterable[str]) -> None:
        """Keep the complaints, each a sentence for the operator."""
        self.complaints = tuple(complaints)
        super().__init__("\n".join(self.complaints))


class WatchedFiles(Generic[T]):
    """The version in force of what some files say."""

    def __init__(
        self,
        paths: Callable[[], Iterable[str]],
        load: Callable[[], T],
        on_loaded: Callable[[T], None],
        on_rejected: Callable[[tuple[str, ...]], None],
    ) -> None:
        """Load the first version.

        Args:
            paths: the files there are now; called again at each look.
            load: reads them; runs in a thread; raises `FilesRefusedError`.
            on_loaded: told each later version that comes into force, on the event loop.
            on_rejected: told the complaints about each later version that does not, on the event loop.

        Raises:
            FilesRefusedError: the first version cannot be used.
        """
        self._paths = paths
        self._load = load
        self._on_loaded = on_loaded
        self._on_rejected = on_rejected
        self._wake = asyncio.Event()
        self._tried: Fingerprint = _fingerprint(paths())
        self.current = load()

    def reload(self) -> None:
        """Look at the files now, changed or not (SIGHUP). Returns at once; the answer comes through the hooks."""
        self._tried = ()
        self._wake.set()

    async def watch(self) -> None:
        """Look for changes every second, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self.look()

    async def look(self) -> None:
        """Take the files if they changed. Reads in a thread; the old version serves until the new one is whole."""
        fingerprint = await asyncio.to_thread(lambda: _fingerprint(self._paths()))
        if fingerprint == self._tried:
            return
        self._tried = fingerprint
        try:
            loaded = await asyncio.to_thread(self._load)
        except FilesRefusedError as error:
            self._on_rejected(error.complaints)
            return
        except BaseException:
            self._tried = ()  # not known to be wrong: whoever keeps this running looks again
            raise
        self.current = loaded
        self._on_loaded(loaded)


def read_guarded(path: str, bytes_max: int, complaints: list[str]) -> bytes | None:
    """The bytes of a file that only its owner may write; None, and a complaint, when it cannot be used."""
    try:
        with Path(path).open("rb") as file:
            wrong = _file_wrong(os.fstat(file.fileno()))
            data = b"" if wrong else file.read(bytes_max + 1)
    except OSError as error:
        complaints.append(f"{path}: cannot be read ({error.strerror})")
        return None
    if len(data) > bytes_max:
        wrong = f"is larger than {bytes_max} bytes; split or shorten it"
    if wrong:
        complaints.append(f"{path}: {wrong}")
        return None
    return data


def _file_wrong(status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_mode & 0o022:
        return f"may be written by others (mode {stat.S_IMODE(status.st_mode):04o}); run chmod go-w on it"
    if status.st_uid not in {0, os.geteuid()}:
        return f"belongs to uid {status.st_uid}; it must belong to root or to the uid of the broker, {os.geteuid()}"
    return ""


def _fingerprint(paths: Iterable[str]) -> Fingerprint:
    """Changes whenever a file does, comes or goes, also when a symlink on the way is swapped (as Kubernetes does)."""
    return tuple((name, *_stat(name)) for name in paths)


def _stat(path: str) -> tuple[int, ...]:
    try:
        status = Path(path).stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode, status.st_uid)
