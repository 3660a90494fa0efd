"""The collector's file: who may open it, and what a failing disk does to it. tests/contracts has what it promises."""

import sqlite3

import pytest
from tests.fakes.open_files import open_files_below
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.sqlite_collector import CollectorStore, StoreBusyError
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.write_rank import WriteRank


@pytest.fixture
async def store(tmp_path):
    """An open store in a fresh directory."""
    opened = CollectorStore(tmp_path / "collector.db", "collector", "c1")
    yield opened
    await opened.close()


async def test_a_second_collector_is_kept_out(store, tmp_path):
    """Two processes on one file would fork the collector's chain: the second is refused."""
    with pytest.raises(StoreBusyError, match="another process"):
        CollectorStore(tmp_path / "collector.db", "collector", "c9")


async def test_the_file_is_private(store, tmp_path):
    """Events name subjects and leases: only the owner may read the file."""
    assert (tmp_path / "collector.db").stat().st_mode & 0o777 == 0o600


async def test_a_file_of_another_version_is_refused(tmp_path):
    """A schema this program does not know is left alone, and the file let go of."""
    connection = sqlite3.connect(tmp_path / "c.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ValueError, match="version 99"):
        CollectorStore(tmp_path / "c.db", "collector", "c1")
    assert open_files_below(tmp_path) == []


async def test_a_full_disk_refuses_and_recovers(store):
    """When SQLite cannot write, callers are refused, nothing is half stored, and later batches go through."""
    emitter = Emitter()
    batch = emitter.calls(200)
    await store._writer.submit(
        lambda connection: connection.execute("PRAGMA max_page_count=1").fetchone() and None, WriteRank.EVENTS
    )
    with pytest.raises(Refusal) as refused:
        await store.append("sidecar-1", batch, 1)
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    await store._writer.submit(
        lambda connection: connection.execute("PRAGMA max_page_count=1073741823").fetchone() and None, WriteRank.EVENTS
    )
    assert (await store.append("sidecar-1", batch, 2)).sequence == 200
    assert store.last_position() == 200


async def test_the_writer_outlives_a_disk_that_fails_twice(store):
    """A failure of the commit and of reloading afterwards refuse callers; the next group finds the store whole."""
    emitter = Emitter()
    await store.append("sidecar-1", emitter.calls(2), 1)
    load, failures = store._writer._rolled_back, []

    def fails_once(connection: sqlite3.Connection) -> None:
        if not failures:
            failures.append(1)
            message = "disk I/O error"
            raise sqlite3.OperationalError(message)
        load(connection)

    def breaks(connection: sqlite3.Connection) -> None:
        connection.execute("SELECT * FROM no_such_table")

    store._writer._rolled_back = fails_once
    with pytest.raises(Refusal) as refused:
        await store._writer.submit(breaks, WriteRank.EVENTS)
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert (await store.append("sidecar-1", emitter.calls(1), 2)).sequence == 3
    assert failures == [1]
