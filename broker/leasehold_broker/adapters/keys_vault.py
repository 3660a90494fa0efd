"""Provider keys in KV version 2 of Vault or OpenBao. Owns the form of an entry, and its changes by check-and-set.

An entry has the key in one field ("value" unless configured), and "disabled" = "true" where it may not be used. While
a rotation is under way the same entry holds the pending and the previous value too: so every step of a rotation is one
check-and-set of one document, and whoever reads it sees either all of a step or nothing.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from leasehold_broker.adapters.stored_value import usable_key
from leasehold_broker.adapters.vault_capabilities import excess, reads_below, rotates_at
from leasehold_broker.adapters.vault_session import VaultAt, VaultSession
from leasehold_broker.adapters.worker_thread import WorkerThread
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_admin import KeyStage, KeyStages
from leasehold_broker.ports.key_source import SourcedKey, SourceFault, SourceState

CALL_SECONDS_MAX = 15.0
VERSION_MAX = 2**53
"""Higher ones come from no Vault; the state store keeps 64 bits, and a lower one would not be believed afterwards."""
PENDING, PREVIOUS, ROTATION, DISABLED = "pending", "previous", "rotation", "disabled"


@dataclass(frozen=True, slots=True)
class VaultKeyAt:
    """Where one key is.

    Args:
        path: below the mount, e.g. "leasehold/prod/anthropic".
        field: of the entry.
    """

    path: str
    field: str = "value"


@dataclass(frozen=True, slots=True)
class _Entry:
    data: Mapping[str, object]
    version: int
    created_wall_ms: int


_Change = Callable[[_Entry], Mapping[str, object] | None]
"""From an entry to what shall replace it; None: nothing needs to change."""


class VaultKeys:
    """Implements `KeySource` and `KeyAdmin`."""

    def __init__(self, at: VaultAt, mount: str, keys: Mapping[str, VaultKeyAt], clock: Clock) -> None:
        """Read these keys, by our name of them, at this KV version 2 mount."""
        self.session = VaultSession(at, clock)
        self._mount = mount
        self._keys = dict(keys)
        self._worker = WorkerThread("vault", CALL_SECONDS_MAX)

    async def read(self, name: str) -> SourcedKey:
        """See the port."""
        entry = await self._worker.run(lambda: self._entry(name))
        value = self._value(entry, name, self._keys[name].field)
        return SourcedKey(value, str(entry.version), entry.created_wall_ms, entry.version)

    async def aclose(self) -> None:
        """See the port."""
        self._worker.close()
        self.session.close()

    async def excess(self, apart: Sequence[str] = (), rotated: Collection[str] = ()) -> Sequence[str]:
        """See the port: beyond reading these keys, and what a rotation takes."""
        needed, around = reads_below(self._mount, (at.path for at in self._keys.values()))
        for name in self._keys.keys() & set(rotated):
            needed |= rotates_at(self._mount, self._keys[name].path)
        return await self._worker.run(lambda: excess(self.session, needed, [*apart, *around]))

    async def stages(self, name: str, rotation: str) -> KeyStages:
        """See the port."""
        data = (await self._worker.run(lambda: self._entry(name))).data
        return KeyStages(data.get(ROTATION) == rotation, PENDING in data, PREVIOUS in data)

    async def staged(self, name: str, stage: KeyStage) -> Secret:
        """See the port."""
        field = self._keys[name].field if stage is KeyStage.CURRENT else stage.value
        entry = await self._worker.run(lambda: self._entry(name))
        if field not in entry.data:
            raise SourceFault(SourceState.MISSING, f"key {name!r} has no {stage} value")
        return self._value(entry, name, field)

    async def put_pending(self, name: str, value: Secret, rotation: str) -> None:
        """See the port."""

        def change(entry: _Entry) -> Mapping[str, object] | None:
            if entry.data.get(ROTATION) == rotation:
                return None
            if PENDING in entry.data or PREVIOUS in entry.data:
                raise SourceFault(SourceState.CONFLICT, f"another rotation of {name!r} is under way")
            return {**entry.data, PENDING: value.reveal().decode("ascii"), ROTATION: rotation}

        await self._worker.run(lambda: self._change(name, change))

    async def promote(self, name: str, rotation: str) -> None:
        """See the port."""
        field = self._keys[name].field

        def change(entry: _Entry) -> Mapping[str, object] | None:
            data = dict(entry.data)
            if data.get(ROTATION) != rotation:
                raise SourceFault(SourceState.CONFLICT, f"rotation {rotation!r} has no value of {name!r} pending")
            if PENDING not in data:
                return None
            pending = data.pop(PENDING)
            return {**data, field: pending, PREVIOUS: data[field]}

        await self._worker.run(lambda: self._change(name, change))

    async def retire(self, name: str, rotation: str) -> None:
        """See the port. Older versions of the entry, which hold the old value, are destroyed in the store."""

        def change(entry: _Entry) -> Mapping[str, object] | None:
            data = dict(entry.data)
            unfinished = PENDING in data or PREVIOUS in data
            if not unfinished:
                return None
            if data.get(ROTATION) != rotation:
                raise SourceFault(SourceState.CONFLICT, f"rotation {rotation!r} is not the last one of {name!r}")
            if data.pop(PENDING, None) is not None:
                # Given up before it was promoted: a late promote of it must not look done.
                data[ROTATION] = ""
            data.pop(PREVIOUS, None)
            return data

        def work() -> None:
            self._change(name, change)
            version = self._entry(name).version
            older = list(range(max(1, version - 100), version))
            if older:
                path = f"{self._mount}/destroy/{self._keys[name].path}"
                self.session.request("put", path, {"versions": older})

        await self._worker.run(work)

    def _entry(self, name: str) -> _Entry:
        reply = self.session.request("get", f"{self._mount}/data/{self._keys[name].path}").get("data")
        data = reply.get("data") if isinstance(reply, Mapping) else None
        metadata = reply.get("metadata") if isinstance(reply, Mapping) else None
        if not isinstance(data, Mapping) or not isinstance(metadata, Mapping):
            message = f"what is stored for {name!r} is no entry of KV version 2; check the mount"
            raise SourceFault(SourceState.MALFORMED, message)
        version, created = metadata.get("version"), metadata.get("created_time")
        if type(version) is not int or not 1 <= version <= VERSION_MAX or not isinstance(created, str):
            raise SourceFault(SourceState.MALFORMED, f"the entry of {name!r} tells no version; check the mount")
        return _Entry(data, version, _wall_ms(created))

    def _change(self, name: str, change: _Change) -> None:
        entry = self._entry(name)
        data = change(entry)
        if data is not None:
            body = {"data": data, "options": {"cas": entry.version}}
            self.session.request("post", f"{self._mount}/data/{self._keys[name].path}", body)

    def _value(self, entry: _Entry, name: str, field: str) -> Secret:
        if str(entry.data.get(DISABLED, "")).lower() == "true":
            raise SourceFault(SourceState.DISABLED, f"key {name!r} is marked disabled in its store")
        return usable_key(name, f"field {field!r}", entry.data.get(field))


def _wall_ms(text: str) -> int:
    """RFC 3339 with nanoseconds, as this server writes it; 0 when it cannot be read: a label only."""
    head, _, fraction = text.rstrip("Z").partition(".")
    try:
        seconds = datetime.fromisoformat(f"{head}+00:00").timestamp()
        return int(seconds) * 1000 + int((fraction[:3] or "0").ljust(3, "0"))
    except ValueError:
        return 0
