"""Run another program in our place. Owns signals and exit codes; refuses to know what the program is for.

The child stays in our process group and so in the terminal's foreground: Ctrl-C, Ctrl-Z, hang-up and window changes
reach it from the terminal itself. Only signals that were sent to us alone are passed on, so none arrives twice.

Signals are taken one by one with sigwaitinfo, which says who sent them; so `hold_signals` must come before any thread
is started, or one of them could take a signal away.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

EXIT_OURS = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_SI_KERNEL = 0x80
_HELD = frozenset((*PASSED_ON, signal.SIGCHLD))


class SignalHold:
    """Signals of this process, held back until somebody waits for them."""

    def __init__(self) -> None:
        """Hold them from now on, in this thread and in all that it starts."""
        # A default disposition of "ignore" would let some systems drop it while it is held.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self.before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)

    def pending(self) -> int | None:
        """A signal to end by that has arrived meanwhile, or None."""
        arrived = signal.sigpending() & set(PASSED_ON)
        return min(arrived) if arrived else None


def start(command: Sequence[str], environment: Mapping[str, str], hold: SignalHold) -> int:
    """Start the program with the signals it would have had without us.

    Returns:
        Its process id.

    Raises:
        OSError: it cannot be started.
    """
    # Not subprocess: only posix_spawn sets the child's signal mask without running Python between fork and exec.
    return os.posix_spawnp(
        command[0],
        list(command),
        dict(environment),
        setsigmask=hold.before,
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores these two; a child expects them
    )


def exit_code_of(error: OSError) -> int:
    """The exit code by which a shell says that a program could not be started."""
    return EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE


def wait(child: int) -> int:
    """Pass signals on until the child has ended.

    Returns:
        Its exit code; 128 + n when signal n ended it.
    """
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else EXIT_SIGNAL_BASE - code
        number, from_terminal = _next_signal()
        if number != signal.SIGCHLD and not from_terminal:
            with suppress(ProcessLookupError):
                os.kill(child, number)


def _next_signal() -> tuple[int, bool]:
    if hasattr(signal, "sigwaitinfo"):
        info = signal.sigwaitinfo(_HELD)
        return info.si_signo, info.si_code == _SI_KERNEL and info.si_signo in _TERMINAL_SIGNALS
    # Where the sender is not told (macOS): at a terminal, take its signals for the terminal's.
    number = signal.sigwait(_HELD)
    return number, number in _TERMINAL_SIGNALS and sys.stdin.isatty()
