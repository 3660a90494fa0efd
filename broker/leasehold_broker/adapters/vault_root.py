"""The own credential of a secret engine of Vault or OpenBao: rotate-root, and whether the engine issues credentials."""

import contextlib

from leasehold_broker.adapters.minters.faults import key_fault
from leasehold_broker.adapters.vault_engines import VaultEngines
from leasehold_broker.adapters.vault_session import VaultAt, VaultSession
from leasehold_broker.adapters.worker_thread import WorkerThread
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_source import SourceFault

CALL_SECONDS_MAX = 60.0
"""The database or the cloud is asked while Vault is."""
CHECK_LIFE_SECONDS = 60
"""A credential that could not be revoked after a check ends by itself."""


class VaultRoot:
    """Implements `EngineRoot`."""

    def __init__(self, at: VaultAt, path: str, engines: VaultEngines, key: str, clock: Clock) -> None:
        """Talk to nobody yet.

        Args:
            at: where, and as whom the root is rotated.
            path: e.g. "database/rotate-root/postgres".
            engines: reads credentials of `key` with the login of sidecars; ours to close.
            key: our name of a key of that engine.
            clock: for the life of our login.
        """
        self._session = VaultSession(at, clock)
        self._worker = WorkerThread("vault-root", CALL_SECONDS_MAX)
        self._path = path
        self._engines = engines
        self._key = key

    async def check(self) -> None:
        """See the port."""
        try:
            opened = await self._engines.open(self._key, CHECK_LIFE_SECONDS)
            lease = ""
            try:
                answer = await self._engines.read(self._key, opened.accessor)
                lease = answer.engine_lease
                answer.value.wipe()
            except SourceFault:
                with contextlib.suppress(SourceFault):  # the fault of the reading is what is told
                    await self._engines.revoke(opened.accessor, "")
                raise
            await self._engines.revoke(opened.accessor, lease)
        except SourceFault as fault:
            raise key_fault(fault) from None

    async def rotate(self) -> None:
        """See the port."""
        try:
            await self._worker.run_steps(lambda _go_on: self._session.request("post", self._path, {}))
        except SourceFault as fault:
            raise key_fault(fault) from None

    async def aclose(self) -> None:
        """Let go of threads and connections."""
        self._worker.close()
        await self._engines.aclose()
