"""A store of keys elsewhere, in memory, that fails as the test says. Implements `KeySource` and `KeyAdmin`."""

from dataclasses import dataclass

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_admin import KeyStage, KeyStages
from leasehold_broker.ports.key_source import SourcedKey, SourceFault, SourceState


@dataclass
class Entry:
    """One key with its stages, as text."""

    current: str
    version: int = 1
    pending: str = ""
    previous: str = ""
    rotation: str = ""
    disabled: bool = False


class MemoryKeySource:
    """Keys by name; `fault` fails every question, `faults` those for one key."""

    def __init__(self) -> None:
        """Start empty."""
        self.entries: dict[str, Entry] = {}
        self.fault: SourceFault | None = None
        self.faults: dict[str, SourceFault] = {}
        self.reads = 0
        self.closed = False

    def put(self, name: str, value: str) -> None:
        """Store the next version."""
        held = self.entries.get(name)
        if held is None:
            self.entries[name] = Entry(value)
        else:
            held.current, held.version = value, held.version + 1

    def entry(self, name: str) -> Entry:
        """The entry, or the fault that the test has set."""
        fault = self.fault or self.faults.get(name)
        if fault is not None:
            raise fault
        if name not in self.entries:
            raise SourceFault(SourceState.MISSING, f"{name!r} is not here")
        return self.entries[name]

    async def read(self, name: str) -> SourcedKey:
        """See the port."""
        self.reads += 1
        entry = self.entry(name)
        if entry.disabled:
            raise SourceFault(SourceState.DISABLED, f"{name!r} is disabled")
        return SourcedKey(Secret(entry.current.encode()), str(entry.version), entry.version * 1000, entry.version)

    async def aclose(self) -> None:
        """See the port."""
        self.closed = True

    async def stages(self, name: str, rotation: str) -> KeyStages:
        """See the port."""
        entry = self.entry(name)
        return KeyStages(entry.rotation == rotation, bool(entry.pending), bool(entry.previous))

    async def staged(self, name: str, stage: KeyStage) -> Secret:
        """See the port."""
        value = getattr(self.entry(name), stage.value)
        if not value:
            raise SourceFault(SourceState.MISSING, f"{name!r} has no {stage} value")
        return Secret(value.encode())

    async def put_pending(self, name: str, value: Secret, rotation: str) -> None:
        """See the port."""
        entry = self.entry(name)
        if entry.rotation == rotation:
            return
        if entry.pending or entry.previous:
            raise SourceFault(SourceState.CONFLICT, "another rotation is under way")
        entry.pending, entry.rotation = value.reveal().decode(), rotation
        entry.version += 1

    async def promote(self, name: str, rotation: str) -> None:
        """See the port."""
        entry = self.entry(name)
        if entry.rotation != rotation:
            raise SourceFault(SourceState.CONFLICT, "nothing of this rotation is pending")
        if entry.pending:
            entry.previous, entry.current, entry.pending = entry.current, entry.pending, ""
            entry.version += 1

    async def retire(self, name: str, rotation: str) -> None:
        """See the port."""
        entry = self.entry(name)
        if not entry.pending and not entry.previous:
            return
        if entry.rotation != rotation:
            raise SourceFault(SourceState.CONFLICT, "another rotation is under way")
        if entry.pending:
            entry.rotation = ""
        entry.pending = entry.previous = ""
        entry.version += 1
