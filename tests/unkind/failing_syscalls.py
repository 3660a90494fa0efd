"""System calls of a running process that fail: strace is attached to it, and lets go again.

Only calls on the files that are named are touched: what else the process writes, sockets and wake-ups, stays sound.
Owns the tracer; needs strace and the right to trace.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ATTACH_SECONDS = 60.0
_SUFFIXES = ("", "-wal", "-shm", "-journal")


def why_not(folder: Path) -> str:
    """Why no process can be traced here; "" when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(
        ["strace", "-o", str(folder / "probe"), "true"], check=False, capture_output=True, timeout=60
    )
    return "tracing is not permitted here" if probe.returncode != 0 else ""


@contextmanager
def failing(pid: int, database: Path, calls: str, error: str, first: int) -> Iterator[Path]:
    """From the `first` of these calls on a database each fails so, in each thread; yields the trace of those calls.

    Args:
        pid: of a process that we started.
        database: a SQLite file; its journal and its shared memory are meant as well.
        calls: names of system calls, with commas between.
        error: "ENOSPC" or "EIO".
        first: which of a thread's calls is the first to fail, from 1.
    """
    trace = database.parent.parent / f"trace-{pid}"
    with failing_on(pid, [Path(f"{database}{suffix}") for suffix in _SUFFIXES], calls, error, first, trace):
        yield trace


@contextmanager
def failing_on(pid: int, files: Sequence[Path], calls: str, error: str, first: int, trace: Path) -> Iterator[None]:
    """The same on these files; without any, on whatever it is that the process calls them for."""
    paths = [part for file in files for part in ("-P", str(file))]
    command = [*_tracing(calls, f"{error}:when={first}+", trace), *paths, "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
        try:
            _wait_until(tracer, pid, traced=True)
            yield
        finally:
            tracer.terminate()
            tracer.wait(ATTACH_SECONDS)
            _wait_until(None, pid, traced=False)


def command_failing(calls: str, error: str, at: int, trace: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command of which the `at`-th of these calls, in any of its threads, fails so."""
    tracing = [*_tracing(calls, f"{error}:when={at}", trace), *command]
    return subprocess.run(tracing, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)


def _tracing(calls: str, how: str, trace: Path) -> list[str]:
    injected = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={how}"]
    return ["strace", "-f", "-qq", "-o", str(trace), *injected]


def _wait_until(tracer: subprocess.Popen[bytes] | None, pid: int, *, traced: bool) -> None:
    deadline = time.monotonic() + ATTACH_SECONDS
    while time.monotonic() < deadline:
        tasks = Path(f"/proc/{pid}/task")
        if not tasks.exists() or all(bool(_tracer(task)) == traced for task in list(tasks.iterdir())):
            return
        assert tracer is None or tracer.poll() is None, "strace has ended"
        time.sleep(0.01)
    message = f"process {pid} is {'not ' if traced else 'still '}traced"
    raise TimeoutError(message)


def _tracer(task: Path) -> int:
    try:
        lines = (task / "status").read_text().splitlines()
    except OSError:  # the thread has ended meanwhile
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("TracerPid:")), 0)
