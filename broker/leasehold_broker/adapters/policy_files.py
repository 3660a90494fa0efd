"""The policy in force, from a TOML file and a folder of Cedar conditions. Owns loading, watching and the last good one.

A new version is taken as a whole or not at all: with any complaint, the old one stays in force and the complaints are
handed to `on_rejected`. Files that others may write are refused: whoever writes the policy decides who gets the keys.
"""

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leasehold_broker.adapters.policy_toml import PolicyRefusedError, read_policy
from leasehold_broker.domain.identity import Identity
from leasehold_broker.domain.policy import LeaseRequest, Policy, Terms
from leasehold_broker.ports.clock import Clock

if TYPE_CHECKING:
    from leasehold_broker.adapters.cedar_conditions import CedarConditions

FILE_BYTES_MAX = 1024 * 1024
CEDAR_FILES_MAX = 100
POLL_SECONDS = 1.0

Fingerprint = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """One version: grants and conditions that belong together. `conditions` None when there is no folder of them."""

    policy: Policy
    conditions: "CedarConditions | None"


def load_policy(path: str, cedar_dir: str = "") -> LoadedPolicy:
    """Read policy file and conditions once.

    Raises:
        PolicyRefusedError: with everything that is wrong.
    """
    complaints: list[str] = []
    files: dict[str, bytes] = {}
    for file in [path, *(_cedar_paths(cedar_dir, complaints) if cedar_dir else [])]:
        data = _read(file, complaints)
        if data is not None:
            files[file] = data
    if path not in files:
        raise PolicyRefusedError(complaints)
    policy: Policy | None = None
    try:
        policy = read_policy(files[path], path, _version(files))
    except PolicyRefusedError as error:
        complaints += error.complaints
    conditions = _conditions({name: data for name, data in files.items() if name != path}, complaints)
    if policy is None or complaints:
        raise PolicyRefusedError(complaints)
    return LoadedPolicy(policy, conditions if cedar_dir else None)


class PolicyFiles:
    """The policy source of a sidecar."""

    def __init__(
        self,
        path: str,
        cedar_dir: str,
        clock: Clock,
        on_loaded: Callable[[Policy], None] = lambda _policy: None,
        on_rejected: Callable[[tuple[str, ...]], None] = lambda _complaints: None,
    ) -> None:
        """Load the first version.

        Args:
            path: the TOML file.
            cedar_dir: folder with conditions (*.cedar); empty for none.
            clock: the hour and weekday that conditions see.
            on_loaded: told each later version that comes into force, on the event loop.
            on_rejected: told the complaints about each later version that does not, on the event loop.

        Raises:
            PolicyRefusedError: the first version cannot be used: there is no policy, so nothing may start.
        """
        self._path = path
        self._cedar_dir = cedar_dir
        self._clock = clock
        self._on_loaded = on_loaded
        self._on_rejected = on_rejected
        self._wake = asyncio.Event()
        self._tried = _fingerprint(path, cedar_dir)
        self._loaded = load_policy(path, cedar_dir)

    def current(self) -> Policy:
        """The policy in force."""
        return self._loaded.policy

    def forbidden_by(self, identity: Identity, request: LeaseRequest, terms: Terms) -> tuple[str, ...]:
        """Names of the conditions that forbid these terms; empty when none does; "error" when one fails."""
        conditions = self._loaded.conditions
        if conditions is None:
            return ()
        return conditions.forbidden_by(identity, request, terms, self._clock.now().wall_ms)

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
        fingerprint = await asyncio.to_thread(_fingerprint, self._path, self._cedar_dir)
        if fingerprint == self._tried:
            return
        self._tried = fingerprint
        try:
            loaded = await asyncio.to_thread(load_policy, self._path, self._cedar_dir)
        except PolicyRefusedError as error:
            self._on_rejected(error.complaints)
            return
        self._loaded = loaded
        self._on_loaded(loaded.policy)


def _conditions(files: dict[str, bytes], complaints: list[str]) -> "CedarConditions | None":
    texts: dict[str, str] = {}
    for name, data in files.items():
        try:
            texts[name] = data.decode("utf-8")
        except UnicodeDecodeError:
            complaints.append(f"{name}: is not UTF-8; save it as UTF-8")
    if not texts:
        return None
    # Imported here: the engine weighs 16 MB, and most sidecars have no conditions.
    from leasehold_broker.adapters.cedar_conditions import CedarConditions  # noqa: PLC0415 - see above

    try:
        return CedarConditions(texts)
    except ValueError as error:
        complaints += str(error).split("\n")
        return None


def _cedar_paths(cedar_dir: str, complaints: list[str]) -> list[str]:
    try:
        paths = sorted(str(path) for path in Path(cedar_dir).iterdir() if path.suffix == ".cedar")
    except OSError as error:
        complaints.append(f"{cedar_dir}: cannot be listed ({error.strerror}); it must be a folder of .cedar files")
        return []
    if len(paths) > CEDAR_FILES_MAX:
        complaints.append(f"{cedar_dir}: has {len(paths)} .cedar files; at most {CEDAR_FILES_MAX} are read")
        return []
    return paths


def _read(path: str, complaints: list[str]) -> bytes | None:
    try:
        with Path(path).open("rb") as file:
            wrong = _file_wrong(os.fstat(file.fileno()))
            data = b"" if wrong else file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        complaints.append(f"{path}: cannot be read ({error.strerror})")
        return None
    if len(data) > FILE_BYTES_MAX:
        wrong = f"is larger than {FILE_BYTES_MAX} bytes; split or shorten it"
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


def _version(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, data in files.items():
        base = Path(name).name.encode()
        digest.update(len(base).to_bytes(4, "big") + base + len(data).to_bytes(4, "big") + data)
    return digest.hexdigest()[:32]


def _fingerprint(path: str, cedar_dir: str) -> Fingerprint:
    """Changes whenever a file does, comes or goes, also when a symlink on the way is swapped (as Kubernetes does)."""
    paths = [path, *(_cedar_paths(cedar_dir, []) if cedar_dir else [])]
    return tuple((name, *_stat(name)) for name in paths)


def _stat(path: str) -> tuple[int, ...]:
    try:
        status = Path(path).stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode, status.st_uid)
