"""The processes behind connections, by pidfd. Owns the descriptors and their bound; refuses to guess at a process.

A pidfd names one process for good: its number may be used again, the descriptor is never another's. SO_PEERPIDFD gives
the one that opened a Unix socket; where the kernel has it not (before 6.5), pidfd_open by the number that SO_PEERCRED
gives. A process of another PID namespace has no number here (0), and is refused: it could not be found again.

What is kept of a process over a restart is its number, start time, PID namespace and boot: the same in all four is the
same process.
"""

import asyncio
import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.ports.peer_processes import Watched

PROCESSES_MAX = 256
"""Each holds a descriptor; the leases of one process share it."""
SO_PEERPIDFD = 77
_CREDENTIALS = struct.Struct("=iII")
_START_FIELD = 22 - 3
"""Of /proc/<pid>/stat, counted from what follows the command's closing bracket (proc(5): starttime is field 22)."""
_UNKNOWN = "-"

DescriptorOf = Callable[[str], int | None]
"""From a connection's name (`Peer.connection`) to its public socket's descriptor; None when it has closed."""


@dataclass(slots=True)
class _Process:
    pidfd: int
    leaving: dict[int, Callable[[], None]] = field(default_factory=dict)


class PidfdProcesses:
    """The `PeerProcesses` of Linux. Lives on one event loop."""

    def __init__(
        self, descriptor_of: DescriptorOf, processes_max: int = PROCESSES_MAX, proc: Path = Path("/proc")
    ) -> None:
        """Take where to find connections and procfs; nothing is watched yet."""
        self._descriptor_of = descriptor_of
        self._processes_max = processes_max
        self._proc = proc
        self._here = f"{_namespace(proc)}/{_boot(proc)}"
        self._processes: dict[str, _Process] = {}
        self._numbers = 0

    def __len__(self) -> int:
        """Processes that are watched."""
        return len(self._processes)

    def watch(self, peer: Peer, on_exit: Callable[[], None]) -> Watched:
        """See the port."""
        descriptor = self._descriptor_of(peer.connection)
        if descriptor is None:
            raise _cannot("the connection has closed, or is a proxy's")
        pid, pidfd = _peer_process(descriptor)
        mark = self._mark(pid)
        if _has_ended(pidfd):
            # What was read of the number may be another process's by now.
            os.close(pidfd)
            raise _cannot("the calling process has ended")
        return self._watched(mark, pidfd, on_exit)

    def watch_again(self, mark: str, on_exit: Callable[[], None]) -> Watched | None:
        """See the port."""
        pid, _, rest = mark.partition("/")
        start, _, place = rest.partition("/")
        if not pid.isdecimal() or start == _UNKNOWN or place != self._here:
            return None
        try:
            pidfd = os.pidfd_open(int(pid))
        except OSError:
            return None
        if self._mark(int(pid)) != mark or _has_ended(pidfd):
            os.close(pidfd)
            return None
        try:
            return self._watched(mark, pidfd, on_exit)
        except Refusal:
            return None

    def close(self) -> None:
        """Watch nothing any more; nobody is told."""
        for mark in tuple(self._processes):
            self._let_go(mark)

    def _watched(self, mark: str, pidfd: int, on_exit: Callable[[], None]) -> Watched:
        process = self._processes.get(mark)
        if process is not None:
            os.close(pidfd)
        elif len(self._processes) >= self._processes_max:
            os.close(pidfd)
            raise Refusal(
                Reason.OVERLOADED,
                f"{self._processes_max} processes are watched here, the maximum; ask without end_with_process",
                retry_after_seconds=60.0,
            )
        else:
            process = self._processes[mark] = _Process(pidfd)
            asyncio.get_running_loop().add_reader(pidfd, self._ended, mark)
        self._numbers += 1
        number = self._numbers
        process.leaving[number] = on_exit
        return Watched(mark, lambda: self._stop(mark, number))

    def _stop(self, mark: str, number: int) -> None:
        process = self._processes.get(mark)
        if process is not None and process.leaving.pop(number, None) is not None and not process.leaving:
            self._let_go(mark)

    def _ended(self, mark: str) -> None:
        for on_exit in self._let_go(mark):
            on_exit()

    def _let_go(self, mark: str) -> tuple[Callable[[], None], ...]:
        process = self._processes.pop(mark)
        asyncio.get_running_loop().remove_reader(process.pidfd)
        os.close(process.pidfd)
        return tuple(process.leaving.values())

    def _mark(self, pid: int) -> str:
        start = _UNKNOWN
        with suppress(OSError, IndexError):
            start = (self._proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[_START_FIELD]
        return f"{pid}/{start}/{self._here}"


def _peer_process(descriptor: int) -> tuple[int, int]:
    """Number and pidfd of the process that opened a connection."""
    borrowed = socket.socket(fileno=descriptor)
    try:
        if borrowed.family != socket.AF_UNIX:
            raise _cannot("over TCP the kernel does not say which process calls")
        raw = borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid: int = _CREDENTIALS.unpack(raw)[0]
        if pid <= 0:
            raise _cannot("the calling process is in another PID namespace, and its id cannot be seen from here")
        try:
            return pid, borrowed.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        except OSError as fault:
            if fault.errno != errno.ENOPROTOOPT:
                raise
        return pid, os.pidfd_open(pid)
    except OSError:
        raise _cannot("the calling process has ended") from None
    finally:
        borrowed.detach()


def _cannot(why: str) -> Refusal:
    return field_invalid("end_with_process", f"cannot be kept: {why}; ask without it")


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _namespace(proc: Path) -> str:
    try:
        return str((proc / "self" / "ns" / "pid").stat().st_ino)
    except OSError:
        return _UNKNOWN


def _boot(proc: Path) -> str:
    try:
        return (proc / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
    except OSError:
        return _UNKNOWN
