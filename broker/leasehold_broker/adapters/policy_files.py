"""The policy in force, from a TOML file and a folder of Cedar conditions. Owns what belongs to one version of it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leasehold_broker.adapters.policy_toml import PolicyRefusedError, read_policy
from leasehold_broker.adapters.watched_files import WatchedFiles, read_guarded
from leasehold_broker.domain.identity import Identity
from leasehold_broker.domain.policy import LeaseRequest, Policy, Terms
from leasehold_broker.ports.clock import Clock

if TYPE_CHECKING:
    from leasehold_broker.adapters.cedar_conditions import CedarConditions

FILE_BYTES_MAX = 1024 * 1024
CEDAR_FILES_MAX = 100


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
        data = read_guarded(file, FILE_BYTES_MAX, complaints)
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
        self._clock = clock
        self._files = WatchedFiles(
            lambda: [path, *(_cedar_paths(cedar_dir, []) if cedar_dir else [])],
            lambda: load_policy(path, cedar_dir),
            lambda loaded: on_loaded(loaded.policy),
            on_rejected,
        )
        self.reload = self._files.reload
        self.watch = self._files.watch
        self.look = self._files.look

    def current(self) -> Policy:
        """The policy in force."""
        return self._files.current.policy

    def forbidden_by(self, identity: Identity, request: LeaseRequest, terms: Terms) -> tuple[str, ...]:
        """Names of the conditions that forbid these terms; empty when none does; "error" when one fails."""
        conditions = self._files.current.conditions
        if conditions is None:
            return ()
        return conditions.forbidden_by(identity, request, terms, self._clock.now().wall_ms)


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


def _version(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, data in files.items():
        base = Path(name).name.encode()
        digest.update(len(base).to_bytes(4, "big") + base + len(data).to_bytes(4, "big") + data)
    return digest.hexdigest()[:32]
