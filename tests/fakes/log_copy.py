"""Logs and copies of them to tamper with: signed as a collector signs, written as its client writes."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.fakes.streams import Emitter, call_event

from leasehold.audit import Record
from leasehold.checkpoint import Checkpoint
from leasehold.merkle import fold, leaf_hash
from leasehold.note import VerifierKey
from leasehold.tiles import write_copy
from leasehold_broker.adapters.checkpoint_key import open_checkpoint_key
from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.checkpoint import TreeHead, checkpoint_text

ORIGIN = "log.example/audit"


def interleaved(count: int, *, subject: str = "agent", streams: int = 3) -> list[Record]:
    """A log of `count` events, from several streams, in turns of seven."""
    emitters = [Emitter(f"sidecar-{number}", "e1") for number in range(streams)]
    records = []
    while len(records) < count:
        for emitter in emitters:
            records += [emitter.emit(call_event(emitter.sequence + 1, subject=subject)) for _ in range(7)]
    return placed(records[:count])


def placed(records: Sequence[ChainedRecord]) -> list[Record]:
    """Records at positions from 1."""
    return [
        Record(position, one.stream, one.epoch, one.sequence, one.previous_digest, one.digest, one.body)
        for position, one in enumerate(records, start=1)
    ]


class SignedLog:
    """A log's key, and copies of any beginning of any history under it."""

    def __init__(self, folder: Path, origin: str = ORIGIN) -> None:
        """Use the key there, or make it."""
        self._origin = origin
        self._folder = folder
        self._signer = open_checkpoint_key(folder / "checkpoint.key", origin)
        self.key = VerifierKey.of_text(self._signer.verifier_key)
        self.key_text = self._signer.verifier_key

    def note(self, records: Sequence[Record]) -> bytes:
        """The signed checkpoint over all of these."""
        root = fold([leaf_hash(record.entry()) for record in records])
        return self.sign(checkpoint_text(self._origin, TreeHead(len(records), root)))

    def sign(self, text: bytes) -> bytes:
        """Any text, signed as a checkpoint is."""
        return self._signer.sign(text)

    def checkpoint(self, records: Sequence[Record]) -> Checkpoint:
        """The same, read."""
        return Checkpoint.of_note(self.note(records), self.key)

    def copy(self, records: Sequence[Record], name: str = "copy", *, note: bytes | None = None) -> Path:
        """A whole copy; an earlier one of this name goes."""
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)
        write_copy(folder, records, self.note(records) if note is None else note, len(records))
        return folder
