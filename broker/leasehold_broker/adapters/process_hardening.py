"""Makes this process a worse target: not dumpable, no core files, memory locked where the system allows it.

A same-uid neighbour can then no longer read our memory, environment or descriptors through /proc. The flag is lost on
exec and on a change of uid, so this is called last before secrets are opened, and asserted.
"""

import ctypes
import resource
from dataclasses import dataclass
from pathlib import Path

_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
NAME = b"leasehold-broke"
"""As `ps` shows it, in the fifteen bytes that it may have: what runs from memory has a number for its name."""
# Locked as they are touched (Linux 4.4): without it, the whole stack of every thread would become resident.
_MCL_CURRENT_FUTURE_ON_FAULT = 7
DESCRIPTORS_WANTED = 16384
"""Three for each connection at the gRPC door, one at the egress, one to a provider, each up to its bound; and room."""
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Hardening:
    """What was reached."""

    dumpable: bool
    memory_locked: bool
    descriptors_max: int


def harden_process(*, lock_memory: bool) -> Hardening:
    """Harden this process.

    Args:
        lock_memory: also try to keep all memory out of swap; fails quietly where the limit is too small.

    Raises:
        RuntimeError: the kernel refused to make the process non-dumpable.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _LIBC.prctl(_PR_SET_NAME, NAME, 0, 0, 0)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    assert_hardened()
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    # Under a limit, a later allocation would fail; lock only where all memory may be locked.
    locked = lock_memory and soft == resource.RLIM_INFINITY and _LIBC.mlockall(_MCL_CURRENT_FUTURE_ON_FAULT) == 0
    return Hardening(dumpable=False, memory_locked=bool(locked), descriptors_max=_raise_descriptors())


def _raise_descriptors() -> int:
    """As many descriptors as we may have: whoever fills the doors up to their bounds must not take those of calls."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def assert_hardened() -> None:
    """Hold that it is still so; an exec or a change of uid undoes it.

    Raises:
        RuntimeError: this process can be read by its neighbours, is traced, or would leave a core file.
    """
    if _LIBC.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        message = "this process is dumpable: its neighbours could read keys from its memory; nothing is opened"
        raise RuntimeError(message)
    tracer = _tracer()
    if tracer != "0":
        message = f"this process is traced by process {tracer}, which can read keys from it; nothing is opened"
        raise RuntimeError(message)
    if resource.getrlimit(resource.RLIMIT_CORE)[0] != 0:
        message = "this process may leave a core file, which would hold keys; nothing is opened"
        raise RuntimeError(message)


def _tracer() -> str:
    """Who traces this process; "0" for nobody. Whoever did before it was hardened still does."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return status.partition("TracerPid:")[2].split(maxsplit=1)[0]
