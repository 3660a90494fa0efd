"""A program of the operator's that makes and ends keys: for every provider that has no minter here.

    PROGRAM [ARGUMENT...] mint KEY ROTATION      one JSON object on its output: {"id": "...", "value": "..."}
    PROGRAM [ARGUMENT...] current KEY            {"id": "..."}, "" when it cannot tell
    PROGRAM [ARGUMENT...] end KEY ID             nothing
    PROGRAM [ARGUMENT...] sweep KEY ROTATION ID  nothing; all of this rotation but ID, which may be ""
    PROGRAM [ARGUMENT...] disable KEY ID         nothing; in a way that can be undone. Only with `can_disable`

Input: one JSON object, {"admin_key": "..."} where one is configured, and {"value": "..."} for current. A secret goes
through these two pipes only: arguments and environment are public on a machine. Exit status 0 means done; 69, 73, 75
and 77 (of sysexits.h) say unreachable, full, busy and denied; 64, to `sweep` alone, that it has no such action; any
other, failed. What it writes to its error output is not read: nobody knows what is in it.
"""

import asyncio
import json
import os
import stat
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from leasehold_broker.adapters.minters.admin_api import Reading
from leasehold_broker.adapters.minters.handed import handed_id, handed_key
from leasehold_broker.adapters.minters.marks import checked
from leasehold_broker.adapters.minters.program import OUTPUT_BYTES_MAX, Ended, TooLongError, run
from leasehold_broker.adapters.private_files import NotPrivateError, check_folder
from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKey, ProviderKeyFault, ProviderKeyState

_NO_SUCH_ACTION = 64
_SAY_NOTHING = frozenset({"end", "sweep", "disable"})
_STATES = {
    69: (ProviderKeyState.UNREACHABLE, "cannot reach the provider"),
    73: (ProviderKeyState.FULL, "says that the provider keeps no more keys; end one that nobody needs"),
    75: (ProviderKeyState.RATE_LIMITED, "asks to be called again later"),
    77: (ProviderKeyState.DENIED, "was denied; check what its admin key may do"),
}


@dataclass(frozen=True, slots=True)
class Program:
    """What is started.

    Args:
        path: absolute; root's or our own, and writable by nobody else.
        arguments: before ours; not secret.
        seconds_max: it is killed after this.
        can_disable: it knows how to make a key inactive.
    """

    path: str
    arguments: tuple[str, ...] = ()
    seconds_max: float = 60.0
    can_disable: bool = False


class ExecKeys:
    """Implements `ProviderKeys`."""

    def __init__(self, program: Program, key: str, admin: Reading | None = None) -> None:
        """Run `program` for our key of this name; `admin` reads what it logs in with."""
        self._program = program
        self._key = key
        self._admin = admin
        self.switch_off = SwitchOff.INACTIVE if program.can_disable else SwitchOff.CUSTOM
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="minter")

    def close(self) -> None:
        """Let go of the thread; a program that runs has an end of its own."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def mint(self, rotation: str) -> ProviderKey:
        """See the port: the program has to keep its promise, to end first what it made before for this rotation."""
        said = await self._run("mint", checked(rotation))
        try:
            return handed_key(said)
        except ValueError as wrong:
            raise self._fault(ProviderKeyState.MALFORMED, str(wrong)) from None

    async def sweep(self, rotation: str, keep_id: str) -> None:
        """See the port: as far as the program can."""
        self._check_id(keep_id)
        await self._run("sweep", checked(rotation), keep_id)

    async def current_id(self, value: Secret) -> str:
        """See the port."""
        said = await self._run("current", secrets={"value": value})
        try:
            return handed_id(said)
        except ValueError as wrong:
            raise self._fault(ProviderKeyState.MALFORMED, str(wrong)) from None

    async def end(self, key_id: str) -> None:
        """See the port."""
        self._check_id(key_id)
        await self._run("end", key_id)

    async def disable(self, key_id: str) -> None:
        """See the port."""
        if not self._program.can_disable:
            return await self.end(key_id)
        self._check_id(key_id)
        await self._run("disable", key_id)
        return None

    def _check_id(self, key_id: str) -> None:
        try:
            handed_id({"id": key_id})
        except ValueError:
            raise self._fault(ProviderKeyState.MALFORMED, f"has given no key the id {key_id!r}") from None

    async def _run(self, *words: str, secrets: Mapping[str, Secret] | None = None) -> Mapping[str, object]:
        told = dict(secrets or {})
        if self._admin is not None:
            told["admin_key"] = await self._admin()
        self._check()
        arguments = (*self._program.arguments, words[0], self._key, *words[1:])
        plain = {name: secret.reveal().decode("ascii") for name, secret in told.items()}
        ended = await self._ended((self._program.path, *arguments), json.dumps(plain).encode() + b"\n")
        if len(ended.output) > OUTPUT_BYTES_MAX:
            raise self._fault(ProviderKeyState.MALFORMED, f"says more than {OUTPUT_BYTES_MAX} bytes")
        if words[0] == "sweep" and ended.status == _NO_SUCH_ACTION:
            return {}
        if ended.status:
            state, said = _STATES.get(ended.status, (ProviderKeyState.FAILING, f"failed (status {ended.status})"))
            raise self._fault(state, said)
        if not ended.output.strip() and words[0] not in _SAY_NOTHING:
            raise self._fault(ProviderKeyState.UNREACHABLE, "ended without a word; what it did is not known")
        return self._object(ended.output)

    async def _ended(self, argv: tuple[str, ...], told: bytes) -> Ended:
        given_up = threading.Event()
        # On a thread of its own: those of the loop find addresses, and must not wait for a program.
        running = asyncio.get_running_loop().run_in_executor(
            self._executor, run, argv, told, self._program.seconds_max, given_up
        )
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            given_up.set()
            await asyncio.wait([running])
            running.exception()  # looked at: nobody waits for it any more, and asyncio would report it
            raise
        except TooLongError:
            message = f"took longer than {self._program.seconds_max:g} s and was killed; what it did is not known"
            raise self._fault(ProviderKeyState.UNREACHABLE, message) from None
        except OSError as error:
            raise self._fault(ProviderKeyState.FAILING, f"cannot be started: {error.strerror}") from None

    def _object(self, output: bytes) -> Mapping[str, object]:
        try:
            said = json.loads(output) if output.strip() else {}
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise self._fault(ProviderKeyState.MALFORMED, "did not answer with a JSON object")
        return said

    def _check(self) -> None:
        """Refuse a program that others may replace: it is told secrets."""
        try:
            found = Path(self._program.path).stat()
            check_folder(Path(self._program.path).parent)
        except NotPrivateError as error:
            raise self._fault(ProviderKeyState.DENIED, f"can be replaced: {error}") from None
        except OSError as error:
            raise self._fault(ProviderKeyState.FAILING, f"cannot be looked at: {error.strerror}") from None
        ours = found.st_uid in {0, os.geteuid()} and not found.st_mode & 0o022
        if not stat.S_ISREG(found.st_mode) or not ours:
            message = "must be a file of root's or of our own user that nobody else may write; run: chmod go-w on it"
            raise self._fault(ProviderKeyState.DENIED, message)

    def _fault(self, state: ProviderKeyState, what: str) -> ProviderKeyFault:
        return ProviderKeyFault(state, f"the program {self._program.path} {what}")
