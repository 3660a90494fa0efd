"""The honeytokens that a process looks for: the file with their digests, watched."""

from pathlib import Path

import structlog

from leasehold_broker.adapters.honeytoken_file import read_honeytokens
from leasehold_broker.adapters.watched_files import WatchedFiles
from leasehold_broker.domain.honeytokens import Honeytoken, Traps

log = structlog.get_logger("leasehold.honeytokens")


class LaidTraps:
    """What is laid, as the file says now; nothing without a file."""

    def __init__(self, path: Path | None) -> None:
        """Read the file.

        Raises:
            FilesRefusedError: it cannot be used.
        """
        self._files = (
            None
            if path is None
            else WatchedFiles(lambda: (str(path),), lambda: Traps(read_honeytokens(str(path))), _loaded, _rejected)
        )

    def sprung_by(self, unverified_credentials: list[str]) -> Honeytoken | None:
        """The honeytoken among what a caller presents, or None."""
        return None if self._files is None else self._files.current.sprung_by(unverified_credentials)

    async def watch(self) -> None:
        """Follow the file, until cancelled. Call only with one."""
        if self._files is not None:
            await self._files.watch()

    @property
    def laid(self) -> bool:
        """True when there is a file."""
        return self._files is not None


def _loaded(traps: Traps) -> None:
    log.info("honeytokens laid", count=len(traps))


def _rejected(complaints: tuple[str, ...]) -> None:
    log.error("a new file of honeytokens was refused, the one before stays in force", complaints=complaints[:5])
