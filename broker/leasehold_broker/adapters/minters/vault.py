"""The password of a static role of Vault's database engine.

A static role has one password: making the next one ends the last at once. Whoever reads it from Vault has the new one;
whoever holds a copy has a dead one, so a rotation of such a key has no time in which both are taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from leasehold_broker.adapters.minters.faults import key_fault
from leasehold_broker.adapters.minters.marks import checked
from leasehold_broker.adapters.vault_session import VaultAt, VaultSession
from leasehold_broker.adapters.worker_thread import WorkerThread
from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.ports.provider_keys import ProviderKey

T = TypeVar("T")
CALL_SECONDS_MAX = 30.0
"""The database is asked while Vault is."""


@dataclass(frozen=True, slots=True)
class _Held:
    """The password now, and when it was made."""

    value: Secret
    id: str


class VaultStaticRole:
    """Implements `ProviderKeys` for one static role of a database engine."""

    switch_off = SwitchOff.REPLACED

    def __init__(self, at: VaultAt, mount: str, role: str, clock: Clock) -> None:
        """Talk to nobody yet."""
        self._session = VaultSession(at, clock)
        self._worker = WorkerThread("vault-role", CALL_SECONDS_MAX)
        self._mount = mount
        self._role = role

    def close(self) -> None:
        """Let go of the thread."""
        self._worker.close()

    async def mint(self, rotation: str) -> ProviderKey:
        """See the port. There is no mark and none is needed: there is never more than one.

        A password that our store does not have is made anew all the same: an earlier attempt may have made it, or the
        engine by its own period; and then it may be the very one that has leaked.
        """
        checked(rotation)

        def work(go_on: Callable[[], None]) -> ProviderKey:
            before = self._held()
            go_on()
            self._rotate()
            after = self._held()
            if after.value == before.value:
                raise SourceFault(SourceState.FAILING, "Vault has rotated the role, and its password is the same")
            return ProviderKey(after.value, after.id)

        return await self._ask(work)

    async def sweep(self, rotation: str, keep_id: str) -> None:
        """See the port: there is never more than one."""

    async def current_id(self, value: Secret) -> str:
        """See the port."""
        held = await self._ask(lambda _go_on: self._held())
        return held.id if held.value == value else ""

    async def end(self, key_id: str) -> None:
        """See the port. Only the password of now is left to be ended: a new one is made, and shown to nobody."""

        def work(go_on: Callable[[], None]) -> None:
            if self._held().id == key_id:
                go_on()
                self._rotate()

        await self._ask(work)

    async def disable(self, key_id: str) -> None:
        """See the port: a role is never without a password."""
        await self.end(key_id)

    def _rotate(self) -> None:
        self._session.request("post", f"{self._mount}/rotate-role/{self._role}", {})

    def _held(self) -> _Held:
        reply = self._session.request("get", f"{self._mount}/static-creds/{self._role}")
        data: Mapping[str, Any] = reply.get("data") or {}
        password, made = data.get("password"), data.get("last_vault_rotation")
        if not isinstance(password, str) or not isinstance(made, str) or not password.isascii():
            raise SourceFault(SourceState.MALFORMED, f"static role {self._role!r} has no password")
        return _Held(Secret(password.encode("ascii")), f"{self._role}@{made}")

    async def _ask(self, work: Callable[[Callable[[], None]], T]) -> T:
        try:
            return await self._worker.run_steps(work)
        except SourceFault as fault:
            raise key_fault(fault) from None
