"""What a hostile process of this node tries against a broker; run as a program, under the uid it is given.

`python neighbour_attacks.py PID`: tries everything that reads another process, and prints one JSON object: what each
attempt gave. Whatever it could read goes to its file descriptor 3. Needs nothing but the standard library.
"""

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_DETACH, PTRACE_SEIZE = 16, 17, 0x4206
SYS_PIDFD_GETFD = 438
RLIMIT_CORE = 4
READ_MAX = 1 << 30
FILES = ("environ", "maps", "smaps", "auxv", "pagemap", "io", "syscall", "stack", "personality", "clear_refs")
LOOT = os.fdopen(3, "wb")


class Iovec(ctypes.Structure):
    """struct iovec."""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def attempt(act):
    """What an attempt gave: "refused" with the kernel's word, or "got" and how much."""
    try:
        loot = act()
    except OSError as error:
        return f"refused: {errno.errorcode.get(error.errno, error.errno)}"
    LOOT.write(loot)
    return f"got {len(loot)} bytes"


def checked(result):
    """The result of a system call; raises as Python does."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def mapped(pid):
    """Readable, writable regions of its memory."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, mode, *_ = line.split()
        if mode.startswith("rw"):
            first, _, last = span.partition("-")
            yield int(first, 16), int(last, 16)


def memory(pid, task):
    """Its memory through /proc."""
    found = b""
    with Path(f"/proc/{pid}/task/{task}/mem").open("rb", buffering=0) as file:
        for first, last in mapped(pid):
            try:
                file.seek(first)
                found += file.read(min(last - first, READ_MAX))
            except (OSError, ValueError, OverflowError):
                continue
    return found


def vm_readv(pid):
    """Its memory through process_vm_readv; without its map, at the usual place of a program."""
    try:
        regions = list(mapped(pid))
    except OSError:
        regions = [(0x400000, 0x401000)]
    found = b""
    for first, last in regions:
        buffer = ctypes.create_string_buffer(min(last - first, READ_MAX))
        local, remote = Iovec(ctypes.addressof(buffer), len(buffer)), Iovec(first, len(buffer))
        got = LIBC.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        if got == -1 and ctypes.get_errno() == errno.EFAULT:
            continue
        found += buffer.raw[: checked(got)]
    return found


def traced(pid, request):
    """Attach as a debugger."""
    checked(LIBC.ptrace(request, pid, None, None))
    if request == PTRACE_ATTACH:
        os.waitpid(pid, 0)
    LIBC.ptrace(PTRACE_DETACH, pid, None, None)
    return b"attached"


def descriptors(pid):
    """Its open files: their names, then the files."""
    found = b""
    for path in sorted(Path(f"/proc/{pid}/fd").iterdir()):
        found += os.fsencode(path.readlink()) + b"\n"
    return found


def stolen_descriptor(pid):
    """A copy of one of its descriptors."""
    handle = os.pidfd_open(pid)
    for number in range(40):
        got = LIBC.syscall(SYS_PIDFD_GETFD, handle, number, 0)
        if got == -1 and ctypes.get_errno() == errno.EBADF:
            continue
        return str(checked(got)).encode()
    return b""


def raised_limit(pid):
    """Core files, allowed from outside."""
    limit = (ctypes.c_ulong * 2)(1 << 30, 1 << 30)
    checked(LIBC.prlimit(pid, RLIMIT_CORE, ctypes.byref(limit), None))
    return b"raised"


def debugger(pid):
    """A core file by gdb, if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        core = Path(folder) / "core"
        command = ["gdb", "--batch", "--nx", "-p", str(pid), "-ex", f"generate-core-file {core}"]
        subprocess.run(command, capture_output=True, timeout=60, check=False)
        if not core.exists():
            raise OSError(errno.EPERM, "no core")
        return core.read_bytes()


def everything(pid):
    """All attempts, by name."""
    proc = Path(f"/proc/{pid}")
    results = {name: attempt((proc / name).read_bytes) for name in FILES}
    for link in ("exe", "cwd", "root"):
        results[link] = attempt(lambda link=link: os.fsencode((proc / link).readlink()))
    results["root listing"] = attempt(lambda: repr([*(proc / "root").iterdir()]).encode())
    results["map_files"] = attempt(lambda: repr([*(proc / "map_files").iterdir()]).encode())
    results["fd"] = attempt(lambda: descriptors(pid))
    results["fd 0"] = attempt(lambda: str(os.open(proc / "fd/0", os.O_RDONLY)).encode())
    results["mem"] = attempt(lambda: memory(pid, pid))
    for task in (proc / "task").iterdir():
        results[f"mem of thread {task.name}"] = attempt(lambda task=task: memory(pid, task.name))
    results["process_vm_readv"] = attempt(lambda: vm_readv(pid))
    results["ptrace attach"] = attempt(lambda: traced(pid, PTRACE_ATTACH))
    results["ptrace seize"] = attempt(lambda: traced(pid, PTRACE_SEIZE))
    results["pidfd_getfd"] = attempt(lambda: stolen_descriptor(pid))
    results["prlimit"] = attempt(lambda: raised_limit(pid))
    if any((Path(folder) / "gdb").exists() for folder in os.get_exec_path()):
        results["gdb"] = attempt(lambda: debugger(pid))
    return results


if __name__ == "__main__":
    signal.alarm(120)
    tried = everything(int(sys.argv[1]))
    LOOT.close()
    sys.stdout.write(json.dumps(tried))
