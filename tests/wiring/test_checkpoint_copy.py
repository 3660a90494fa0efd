"""The copy of the checkpoint on a disk that fails or hangs: it is said, and nothing else waits for it."""

import asyncio
import threading
from pathlib import Path

import pytest

from leasehold_broker.adapters.private_files import replace_private
from leasehold_broker.domain.checkpoint import TreeHead
from leasehold_broker.flows.publish_checkpoint import LogDamagedError
from leasehold_broker.wiring import checkpoints
from leasehold_broker.wiring.checkpoints import CheckpointCopy


class HangingDisk:
    """Takes a write and keeps it, until it is let go."""

    def __init__(self) -> None:
        """Hangs."""
        self.began: list[bytes] = []
        self.first = threading.Event()
        self.goes_on = threading.Event()

    def write(self, path: Path, note: bytes) -> None:
        """As replace_private; later."""
        self.began.append(note)
        self.first.set()
        self.goes_on.wait(60)
        replace_private(path, note)


@pytest.fixture
def impatient(monkeypatch):
    """What hangs is waited for a moment."""
    monkeypatch.setattr(checkpoints, "COPY_SECONDS_MAX", 0.05)


async def test_a_disk_that_hangs_has_one_thread_and_gets_the_newest_note_once_it_goes_on(tmp_path, impatient):
    """Waited for once; then each note is turned away at once, by name; no thread of the loop's pool is in it."""
    disk, path = HangingDisk(), tmp_path / "copy"
    copy = CheckpointCopy(path, disk.write)
    assert "has not ended" in await copy.put(b"1")
    for _ in range(100):
        assert "hangs still" in await copy.put(b"2")
    assert await asyncio.to_thread(disk.first.wait, 60)
    assert disk.began == [b"1"]
    assert [one.name for one in threading.enumerate()].count("checkpoint-copy") == 1
    disk.goes_on.set()
    async with asyncio.timeout(240):
        while await copy.put(b"3"):  # noqa: ASYNC110 - the disk's word is the only one
            await asyncio.sleep(0.01)
    assert path.read_bytes() == b"3"


async def test_a_disk_that_fails_is_told_and_one_that_is_not_configured_is_not(tmp_path):
    """The reason of the system; "" for nowhere."""
    assert await CheckpointCopy(tmp_path / "missing" / "copy").put(b"1") == "No such file or directory"
    assert await CheckpointCopy(None).put(b"1") == ""
    assert await CheckpointCopy(None).kept("o") is None
    assert await CheckpointCopy(tmp_path / "copy").kept("o") is None


async def test_a_copy_that_cannot_be_read_at_the_start_is_no_copy_to_go_on_from(tmp_path, monkeypatch):
    """Neither one that hangs nor one that is no checkpoint: an older store would not be noticed."""
    (tmp_path / "copy").write_bytes(b"scribble")
    with pytest.raises(LogDamagedError, match="put the right one back"):
        await CheckpointCopy(tmp_path / "copy").kept("o")
    monkeypatch.setattr(checkpoints, "COPY_SECONDS_MAX", 0.05)
    goes_on = threading.Event()

    def hangs(_path: Path, _origin: str) -> TreeHead | None:
        goes_on.wait(60)
        return None

    monkeypatch.setattr(checkpoints, "_kept", hangs)
    with pytest.raises(LogDamagedError, match="mend that disk first"):
        await CheckpointCopy(tmp_path / "copy").kept("o")
    goes_on.set()
