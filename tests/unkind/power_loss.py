"""What a disk may hold after the power went: made from a trace of what a process wrote and synced.

A write may be on the disk from when it begins; it must be there once a sync of its file has ended that began after the
write had ended. Between the two it may be lost, kept or torn at any sector, whatever came before or after it. A file
that is made or removed is surely so once its directory was synced.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SECTOR_BYTES = 512
STRACE = (
    *("-ff", "-qq", "-y", "-ttt", "-T", "-xx", "-s", "2000000"),
    *("-e", "trace=openat,pwrite64,write,fsync,fdatasync,ftruncate,unlink"),
)
SYNCS = ("fsync", "fdatasync")
CHANGES = ("pwrite64", "write", "ftruncate")
_LINE = re.compile(r"(?P<begin>\d+\.\d+) (?P<call>\w+)\((?P<rest>.*)\) += (?P<result>\S+).* <(?P<took>\d+\.\d+)>$")
_PATH = re.compile(r"\d+<(?P<path>[^>]*)>")
_TEXT = re.compile(r'"(?P<text>(?:\\x[0-9a-f]{2})*)"(?P<cut>\.\.\.)?')


@dataclass(frozen=True, slots=True)
class Step:
    """One system call that changes or syncs a file; times in seconds, `size` of a truncation."""

    begin: float
    end: float
    call: str
    path: Path
    data: bytes = b""
    offset: int = 0

    @classmethod
    def of_line(cls, line: str) -> Self | None:
        """A line of the trace; None for one that failed or changes nothing."""
        found = _LINE.match(line)
        if found is None or found["result"].startswith("-1"):
            return None
        begin, call, rest = float(found["begin"]), found["call"], found["rest"]
        at = (begin, begin + float(found["took"]), call)
        text = _TEXT.search(rest)
        assert text is None or not text["cut"], "the trace cuts data short"
        data = bytes.fromhex(text["text"].replace("\\x", "")) if text else b""
        if call == "unlink":
            return cls(*at, Path(data.decode()))
        if call == "openat":
            path = _PATH.search(found[0].rpartition("= ")[2])
            return cls(*at, Path(_plain(path["path"]))) if path and "O_CREAT" in rest else None
        path = _PATH.match(rest)
        assert path is not None, line
        last = int(rest.rpartition(", ")[2]) if call in {"pwrite64", "ftruncate"} else 0
        return cls(*at, Path(_plain(path["path"])), data[: int(found["result"])], last)


def _plain(path: str) -> str:
    """Strace writes paths in hex too."""
    return bytes.fromhex(path.replace("\\x", "")).decode() if path.startswith("\\x") else path


def read_trace(folder: Path, name: str) -> list[Step]:
    """All steps of all threads, in the order in which they began."""
    lines = (line for file in folder.glob(f"{name}.*") for line in file.read_text().splitlines())
    return sorted((step for step in map(Step.of_line, lines) if step is not None), key=lambda step: step.begin)


@dataclass(frozen=True, slots=True)
class Disk:
    """A directory as it was, and what was done to it since.

    Args:
        before: contents of its files by name.
        directory: where it lay when it was traced.
        steps: all that was done to it.
    """

    before: dict[str, bytes]
    directory: Path
    steps: list[Step]

    @classmethod
    def traced(cls, prepared: Path, directory: Path, steps: list[Step]) -> Self:
        """What was done to `directory`, which began as a copy of `prepared`."""
        own = [step for step in steps if directory in {step.path, step.path.parent}]
        return cls({file.name: file.read_bytes() for file in prepared.iterdir()}, directory, own)

    def moments(self) -> Iterator[float]:
        """When something began or ended: between two of these nothing changes."""
        yield from sorted({moment for step in self.steps for moment in (step.begin, step.end)})

    def write_image(self, moment: float, target: Path, rng: random.Random, share_kept: float) -> None:
        """What may be found if the power goes at that moment; unsynced writes are kept with this probability."""
        target.mkdir(mode=0o700)
        for name in {*self.before, *(step.path.name for step in self.steps if step.path != self.directory)}:
            content = self._content(name, moment, rng, share_kept)
            if content is not None:
                (target / name).write_bytes(content)
                (target / name).chmod(0o600)

    def _content(self, name: str, moment: float, rng: random.Random, share_kept: float) -> bytes | None:
        path, content = self.directory / name, self.before.get(name)
        for step in self.steps:
            if step.path != path or step.begin >= moment:
                continue
            if step.call in {"unlink", "openat"}:
                sure = self._synced(self.directory, step, moment)
                if sure or rng.random() < share_kept:
                    content = None if step.call == "unlink" else content if content is not None else b""
            elif step.call in CHANGES and content is not None:
                sure = self._synced(path, step, moment)
                content = _changed(content, step, None if sure else (rng, share_kept))
        return content

    def _synced(self, path: Path, step: Step, moment: float) -> bool:
        return any(
            other.call in SYNCS and other.path == path and step.end <= other.begin and other.end <= moment
            for other in self.steps
        )


def _changed(content: bytes, step: Step, chance: tuple[random.Random, float] | None) -> bytes:
    """After the step: whole, or for those sectors that chance keeps."""
    if step.call == "ftruncate":
        kept = chance is None or chance[0].random() < chance[1]
        return content[: step.offset].ljust(step.offset, b"\0") if kept else content
    offset = len(content) if step.call == "write" else step.offset
    for start in range(0, len(step.data), SECTOR_BYTES):
        piece = step.data[start : start + SECTOR_BYTES]
        if chance is None or chance[0].random() < chance[1]:
            at = offset + start
            content = content.ljust(at, b"\0")[:at] + piece + content[at + len(piece) :]
    return content
