"""What a rotation does to a key in the encrypted file. Owns its steps as changes of one entry, each all or nothing.

It opens the file for itself, on a thread of its own: a running sidecar that serves from the same file notices a change
within a second. A pending value is sealed for the version that it will have, so that to promote it is to move it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from leasehold_broker.adapters.keys_document import Entry, KeyStoreError, KeyUnknownError, Sealed
from leasehold_broker.adapters.keys_local import LocalKeys, Opened, next_version
from leasehold_broker.adapters.worker_thread import WorkerThread
from leasehold_broker.domain.keys import KeyState
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_admin import KeyStage, KeyStages
from leasehold_broker.ports.key_source import SourcedKey, SourceFault, SourceState

CALL_SECONDS_MAX = 15.0
T = TypeVar("T")


class LocalKeyAdmin:
    """Implements `KeySource` and `KeyAdmin` over the file."""

    def __init__(self, open_store: Callable[[], LocalKeys], clock: Clock) -> None:
        """Open the file at the first question, by `open_store`."""
        self._open_store = open_store
        self._clock = clock
        self._store: LocalKeys | None = None
        self._worker = WorkerThread("keys-file", CALL_SECONDS_MAX)

    async def aclose(self) -> None:
        """See the port."""
        self._worker.close()

    async def read(self, name: str) -> SourcedKey:
        """See the port."""

        def work(store: LocalKeys) -> SourcedKey:
            opened, entry = store.read_entry(name)
            record = entry.record
            if record.state is not KeyState.ENABLED:
                raise SourceFault(SourceState.DISABLED, f"key {name!r} is disabled in the store")
            value = opened.unseal(record, _serving(entry))
            return SourcedKey(value, str(record.version), record.created_wall_ms, record.version)

        return await self._run(work)

    async def stages(self, name: str, rotation: str) -> KeyStages:
        """See the port."""

        def work(store: LocalKeys) -> KeyStages:
            _, entry = store.read_entry(name)
            return KeyStages(entry.rotation == rotation, entry.pending is not None, entry.previous is not None)

        return await self._run(work)

    async def staged(self, name: str, stage: KeyStage) -> Secret:
        """See the port."""

        def work(store: LocalKeys) -> Secret:
            opened, entry = store.read_entry(name)
            held = {
                KeyStage.CURRENT: _serving(entry),
                KeyStage.PENDING: entry.pending,
                KeyStage.PREVIOUS: entry.previous,
            }
            sealed = held[stage]
            if sealed is None:
                raise SourceFault(SourceState.MISSING, f"key {name!r} has no {stage} value")
            return opened.unseal(entry.record, sealed)

        return await self._run(work)

    async def put_pending(self, name: str, value: Secret, rotation: str) -> None:
        """See the port."""

        def change(opened: Opened, entry: Entry) -> Entry | None:
            if entry.rotation == rotation:
                return None
            if entry.pending is not None or entry.previous is not None:
                raise SourceFault(SourceState.CONFLICT, f"another rotation of {name!r} is under way")
            sealed = opened.seal(replace(entry.record, version=next_version(entry)), value)
            return replace(entry, rotation=rotation, pending=sealed)

        await self._run(lambda store: store.change_entry(name, change))

    async def promote(self, name: str, rotation: str) -> None:
        """See the port."""

        def change(_: Opened, entry: Entry) -> Entry | None:
            if entry.rotation != rotation:
                raise SourceFault(SourceState.CONFLICT, f"rotation {rotation!r} has no value of {name!r} pending")
            new = entry.pending
            if new is None:
                return None
            record = replace(entry.record, version=new.version, created_wall_ms=self._clock.now().wall_ms)
            return Entry(record, new.nonce, new.sealed, rotation, None, _serving(entry))

        await self._run(lambda store: store.change_entry(name, change))

    async def retire(self, name: str, rotation: str) -> None:
        """See the port."""

        def change(_: Opened, entry: Entry) -> Entry | None:
            if entry.pending is None and entry.previous is None:
                return None
            if entry.rotation != rotation:
                raise SourceFault(SourceState.CONFLICT, f"rotation {rotation!r} is not the last one of {name!r}")
            if entry.pending is None:
                return replace(entry, previous=None)
            # Given up before it was promoted: a late promote of it must not look done.
            return Entry(entry.record, entry.nonce, entry.sealed)

        await self._run(lambda store: store.change_entry(name, change))

    async def _run(self, work: Callable[[LocalKeys], T]) -> T:
        def translated() -> T:
            try:
                if self._store is None:
                    self._store = self._open_store()
                return work(self._store)
            except KeyStoreError as error:
                state = SourceState.MISSING if isinstance(error, KeyUnknownError) else SourceState.FAILING
                raise SourceFault(state, str(error)) from None

        return await self._worker.run(translated)


def _serving(entry: Entry) -> Sealed:
    return Sealed(entry.record.version, entry.nonce, entry.sealed)
