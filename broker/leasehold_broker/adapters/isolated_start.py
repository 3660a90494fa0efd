"""Starts a process that will hold secrets apart from what others may have put around it.

Owns: which environment variables such a process has, that Python ignores the rest of its surroundings (`python -I`: no
user site directory, no PYTHON* variables, no current directory on the path), and which code a `.pth` file may run at
start. Every process starts itself anew, once, in the same process id, from an interpreter that may be run but not read:
so nobody can look into it from its first instruction on, also not who has been waiting for it.

It detects, and says so; it cannot undo: code that a `.pth` file or LD_PRELOAD ran before the first line here had this
user's rights. What is installed is decided by hash-pinned requirements, and who may set a service's environment by its
unit or manifest.
"""

import contextlib
import hashlib
import os
import site
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from leasehold_broker.domain.key_shapes import is_provider_key

KEPT = frozenset({"HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER", "XDG_RUNTIME_DIR"})
KEPT_ALSO = frozenset(
    {"NO_COLOR", "SSL_CERT_DIR", "SSL_CERT_FILE", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "INVOCATION_ID"}
)
KEPT_PREFIXES = ("LC_", "LEASEHOLD_")
"""What a process keeps of its environment. Not among it: PYTHON*, LD_*, GRPC_* (traces print headers), proxies."""

PTH_LINES = {
    "2f70c2fa9227e9db9348215d9c7b246d2786aac7516f86d71a5952c7c225aa16": "setuptools: distutils-precedence.pth",
    "2cbb286eeaf39b2cd7d68cb09c1bc3cfb0cc8d27da949004d0c22698f127f270": "coverage 7.10 and later: a1_coverage.pth",
}
"""SHA-256 of the executable lines (without the white space around them) that a `.pth` file may have."""

INTERPRETER_BYTES_MAX = 64 * 1024 * 1024
_MARK = "leasehold"
_MAIN = "import sys; sys.argv[0] = 'leasehold-broker'; from leasehold_broker.cli import main; main()"


class NotIsolatedError(Exception):
    """This process must not hold secrets where it is; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What becomes of an environment.

    Args:
        kept: the variables that the process has.
        suspicious: names of dropped variables whose value looked like a provider's key, sorted.
    """

    kept: Mapping[str, str]
    suspicious: tuple[str, ...]


def isolate(key_variables: Iterable[str]) -> None:
    """Return in an isolated process that was started anew, or start this one so.

    Args:
        key_variables: names of variables that hold provider keys by convention.

    Raises:
        NotIsolatedError: a provider key in the environment, or code in the import path that is not known.
    """
    environment = environment_of(os.environ, frozenset(key_variables))
    if _MARK not in sys._xoptions:  # noqa: SLF001 - the documented name of what -X sets
        _start_anew(environment)
    if not sys.flags.isolated or dict(environment.kept) != dict(os.environ):
        raise NotIsolatedError("this process cannot be isolated: started anew, its surroundings were as before")
    check_import_path(sys.path, [*site.getsitepackages()])
    check_customized()


def environment_of(environ: Mapping[str, str], key_variables: frozenset[str]) -> Environment:
    """What is kept of `environ`.

    Raises:
        NotIsolatedError: it holds a provider key under a name that providers use, or in a variable that is kept.
    """
    kept, suspicious = {}, []
    for name, value in environ.items():
        keeps = name in KEPT or name in KEPT_ALSO or name.startswith(KEPT_PREFIXES)
        if name in key_variables or (keeps and is_provider_key(value)):
            message = (
                f"{name} is set: a provider key does not belong into the broker's environment, which others can read; "
                "put it into the key store (leasehold-broker keys add) and take the variable away"
            )
            raise NotIsolatedError(message)
        if keeps:
            kept[name] = value
        elif is_provider_key(value):
            suspicious.append(name)
    return Environment(kept, tuple(sorted(suspicious)))


def _start_anew(environment: Environment) -> NoReturn:
    for name in environment.suspicious:
        sys.stderr.write(f"warning: {name} looks like a provider key and is dropped; take it out of the environment\n")
    sys.stderr.flush()
    command = [sys.executable, "-I", "-X", _MARK, "-c", _MAIN, *sys.argv[1:]]
    copy = _unreadable_copy(Path(sys.executable))
    if copy is not None:
        with contextlib.suppress(OSError):
            # Some systems forbid to run what is in memory only.
            os.execve(copy, command, dict(environment.kept))  # noqa: S606 - this very program
    os.execve(sys.executable, command, dict(environment.kept))  # noqa: S606 - this very program


def _unreadable_copy(program: Path) -> int | None:
    """A descriptor of `program` in memory, which this user may run and not read; None where that is of no use.

    The kernel makes a process that runs from such a file not dumpable as part of exec. Our own call for that comes some
    tens of milliseconds later, and a descriptor of our memory that was opened meanwhile would go on reading it. For
    root nothing is unreadable.
    """
    if os.geteuid() == 0 or program.stat().st_size > INTERPRETER_BYTES_MAX:
        return None
    content = program.read_bytes()
    if not content.startswith(b"\x7fELF") or b"$ORIGIN" in content:
        # Its libraries are looked for beside it, and beside the copy there are none.
        return None
    try:
        writing = os.memfd_create("leasehold-broker", os.MFD_CLOEXEC)
        try:
            with open(writing, "wb", closefd=False) as file:
                file.write(content)
            reading = os.open(f"/proc/self/fd/{writing}", os.O_RDONLY | os.O_CLOEXEC)
            os.fchmod(writing, 0o111)
        finally:
            os.close(writing)
    except OSError:
        return None
    return reading


def check_import_path(path: Iterable[str], sites: Iterable[str]) -> None:
    """Refuse an import path that others can write to, and `.pth` files with unknown code.

    Args:
        path: `sys.path`.
        sites: the directories whose `.pth` files Python reads at start.

    Raises:
        NotIsolatedError: names the directory, or the file and its line.
    """
    for entry in map(Path, path):
        if entry.exists() and entry.stat().st_mode & stat.S_IWOTH:
            message = f"{entry} is on the import path and writable by everyone; run chmod o-w on it"
            raise NotIsolatedError(message)
    for folder in map(Path, sites):
        for file in sorted(folder.glob("*.pth")):
            _check_pth(file)


def _check_pth(file: Path) -> None:
    text = file.read_bytes().decode("utf-8", "surrogateescape")
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.lstrip("\ufeff")
        if not line.startswith(("import ", "import\t")):
            continue
        digest = hashlib.sha256(line.strip().encode("utf-8", "surrogateescape")).hexdigest()
        if digest not in PTH_LINES:
            message = (
                f"{file} line {number} runs code whenever Python starts, and is not known (SHA-256 {digest}); "
                "find out which package put it there; remove the file or the package, and when you cannot explain it, "
                "treat every secret on this machine as stolen"
            )
            raise NotIsolatedError(message)


def check_customized() -> None:
    """Refuse a `sitecustomize` or `usercustomize` module from outside the interpreter's own library.

    Raises:
        NotIsolatedError: names its file.
    """
    library = Path(os.__file__).parent
    for name in ("sitecustomize", "usercustomize"):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and Path(file).parent != library:
            message = f"{file} runs whenever Python starts and is not part of Python; remove it"
            raise NotIsolatedError(message)
    # What such a module may have put there prints, or sends away, the values of a fault.
    sys.excepthook = sys.__excepthook__
