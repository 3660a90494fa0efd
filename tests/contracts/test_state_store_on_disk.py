"""The state store on disk: whose directory it is, what damage or a full disk says, and the end of its writer."""

import asyncio
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from tests.fakes.core import Core
from tests.fakes.manual_clock import ManualClock
from tests.fakes.open_files import open_files_below
from tests.fakes.state_stores import SqliteHarness, commit_until_refused, event, put_account

from leasehold_broker.domain.amounts import Amounts
from leasehold_broker.domain.ledger import Hold, HoldId
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.state_store import PutHold


async def test_a_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    """State and token digests are private; the sentence says what to run."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o750)
    with pytest.raises(RuntimeError, match="run: chmod 700"):
        SqliteHarness(ManualClock(), directory).open()


async def test_a_second_process_on_one_directory_is_refused(tmp_path: Path) -> None:
    """Two writers of one budget would each spend it."""
    harness = SqliteHarness(ManualClock(), tmp_path / "state")
    store = harness.open()
    with pytest.raises(RuntimeError, match="another sidecar uses"):
        harness.open()
    await store.close()
    store = harness.open()
    await store.close()


@pytest.mark.parametrize("damage", ["not a database", "broken row", "broken count", "half a file"])
async def test_a_damaged_file_is_a_clear_error_and_no_fresh_start(tmp_path: Path, damage: str) -> None:
    """Forgetting what was spent would be worse than not starting; the lock is given back."""
    harness = SqliteHarness(ManualClock(), tmp_path / "state")
    store = harness.open()
    core = await Core(store, harness.clock).recover()
    await core.lease()
    await store.close()
    path = harness.directory / "state.db"
    if damage == "not a database":
        path.write_bytes(b"x" * 4096)
    elif damage == "half a file":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        connection = sqlite3.connect(path)
        if damage == "broken row":
            connection.execute("UPDATE leases SET body = x'7b7d'")
        else:
            connection.execute("UPDATE meta SET value = x'7a' WHERE name = 'lives'")
        connection.commit()
        connection.close()
    with pytest.raises(RuntimeError, match=r"is damaged .* move the state directory away"):
        await harness.open_and_load()
    assert open_files_below(harness.directory) == []
    path.unlink()
    await harness.open().close()


async def test_commits_after_closing_are_refused(tmp_path: Path) -> None:
    """Nobody waits for ever for a writer that has gone."""
    store = SqliteHarness(ManualClock(), tmp_path / "state").open()
    await store.close()
    with pytest.raises(Refusal) as caught:
        await store.commit([event(1)])
    assert caught.value.reason == Reason.STORE_UNAVAILABLE


async def test_a_fault_of_one_change_answers_everyone_and_stops_the_granting(tmp_path: Path) -> None:
    """The only writer never dies silently: whoever waits is told, and so is everyone after."""
    store = SqliteHarness(ManualClock(), tmp_path / "state").open()
    core = await Core(store, ManualClock()).recover()
    lease = await core.lease()
    poison = PutHold(Hold(HoldId("\ud800"), (), Amounts(1)), lease.name)
    answers = await asyncio.gather(store.commit([event(1)], [poison]), store.commit([event(2)]), return_exceptions=True)
    answers.append((await asyncio.gather(store.commit([event(3)]), return_exceptions=True))[0])
    assert [answer.reason for answer in answers] == [Reason.STORE_UNAVAILABLE] * 3
    await store.close()


async def test_a_full_disk_refuses_and_recovers_on_a_real_file_system(tmp_path: Path) -> None:
    """On a file system of a few hundred kilobytes: refused when full, whole after space was made, chain unbroken."""
    mount = shutil.which("mount")
    small = tmp_path / "small"
    small.mkdir()
    if (
        mount is None
        or subprocess.run(  # noqa: ASYNC221 - a mount takes no time
            [mount, "-t", "tmpfs", "-o", "size=600k,mode=0700", "tmpfs", str(small)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a small file system needs root")
    try:
        ballast = small / "ballast"
        ballast.write_bytes(b"x" * 200_000)
        harness = SqliteHarness(ManualClock(), small / "state")
        store = harness.open()
        with pytest.raises(Refusal) as caught:
            await commit_until_refused(store, padding=10_000)
        stored = len(await store.pending_after(0, 1000))
        assert caught.value.reason == Reason.AUDIT_SPOOL_FULL
        ballast.unlink()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await store.commit([event(stored)], [put_account(stored)])
        await store.close()
        store = harness.open()
        records = [one.record for one in await store.pending_after(0, 1000)]
        assert list(range(1, stored + 2)) == [record.sequence for record in records]
        assert [put_account(stored)] == list(store.load().accounts)
        await store.close()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)  # noqa: ASYNC221 - as above
