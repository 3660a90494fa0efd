"""One run of a program of the operator's. Owns that it is told nothing but its input, and that its time and words end.

The one place where the broker starts a process: without our descriptors, environment or folder, in a session of its
own, which is killed with everything in it at its end. Blocking, on a thread: the exit is waited for without reaping the
process, so that what is killed can be nobody else's by then.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from dataclasses import dataclass

OUTPUT_BYTES_MAX = 64 * 1024
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_LOOK_SECONDS = 0.05
_PIPE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended.

    Args:
        status: of its exit; negative: the signal that ended it.
        output: what it said, at most one byte more than it may; may hold a secret.
    """

    status: int
    output: bytes

    def __repr__(self) -> str:
        """The status, and no more."""
        return f"Ended({self.status})"


class TooLongError(Exception):
    """It was killed at the end of its time, or because nobody waits any more."""


def run(argv: tuple[str, ...], told: bytes, seconds_max: float, given_up: threading.Event) -> Ended:
    """Run it to its end, or for as long as it may.

    Args:
        argv: the program's path, and its arguments.
        told: its input; what it does not read is lost.
        seconds_max: it is killed after this.
        given_up: set by who does not wait any more.

    Raises:
        TooLongError: what it has done is not known.
        OSError: it cannot be started.
    """
    deadline = time.monotonic() + seconds_max
    process = subprocess.Popen(  # noqa: S603 - the configuration names it, and its file was checked
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        cwd="/",
        start_new_session=True,
        bufsize=0,
    )
    try:
        output = _talk(process, told, deadline, given_up)
        if len(output) <= OUTPUT_BYTES_MAX:
            while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                _check(deadline, given_up)
                time.sleep(_LOOK_SECONDS)
    finally:
        # It is not reaped yet, so the number is its own still.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        status = process.wait()
    return Ended(status, output)


def _talk(process: "subprocess.Popen[bytes]", told: bytes, deadline: float, given_up: threading.Event) -> bytes:
    """Its output, until it closes it or says too much; its input is written as it reads."""
    assert process.stdin is not None  # noqa: S101 - a pipe was asked for
    assert process.stdout is not None  # noqa: S101 - as above
    source, sink = process.stdout.fileno(), process.stdin.fileno()
    os.set_blocking(sink, False)
    output, left = bytearray(), memoryview(told)
    with selectors.DefaultSelector() as ready:
        ready.register(source, selectors.EVENT_READ)
        ready.register(sink, selectors.EVENT_WRITE)
        while True:
            _check(deadline, given_up)
            for key, _ in ready.select(_LOOK_SECONDS):
                if key.fd == sink:
                    left = left[_written(sink, left) :]
                    if not left:
                        ready.unregister(sink)
                        process.stdin.close()
                else:
                    more = os.read(source, _PIPE_BYTES)
                    output += more
                    if not more or len(output) > OUTPUT_BYTES_MAX:
                        return bytes(output[: OUTPUT_BYTES_MAX + 1])


def _written(sink: int, left: memoryview) -> int:
    """How much is done with; all of it when nobody reads."""
    try:
        return os.write(sink, left)
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(left)


def _check(deadline: float, given_up: threading.Event) -> None:
    if given_up.is_set() or time.monotonic() >= deadline:
        raise TooLongError
