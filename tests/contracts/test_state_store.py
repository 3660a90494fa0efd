"""What every state store promises, asked of the one in memory and of the one on disk."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakes.core import Core
from tests.fakes.manual_clock import ManualClock
from tests.fakes.state_stores import A, MemoryHarness, SqliteHarness, commit_until_refused, event, put_account

from leasehold_broker.domain.amounts import ALL_METRICS, Amounts, Metric
from leasehold_broker.domain.audit_chain import GENESIS, broken_link
from leasehold_broker.domain.budget_changes import BudgetChange, Direction
from leasehold_broker.domain.engine_lease import EngineLease
from leasehold_broker.domain.keys import KeyMark, KeyMarkKind
from leasehold_broker.domain.ledger import AccountId, Hold, HoldId, Leg
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.replay import Showing
from leasehold_broker.domain.revocation import ByLease, Revocation
from leasehold_broker.domain.time import NANOS
from leasehold_broker.ports.state_store import (
    DropAccount,
    DropBudgetChange,
    DropEngineLease,
    DropHold,
    DropLease,
    DropRequest,
    DropRevocation,
    PutBudgetChange,
    PutEngineLease,
    PutHold,
    PutKeyMark,
    PutLease,
    PutRequest,
    PutRevocation,
    PutShowing,
)


@pytest.fixture(params=["memory", "sqlite"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryHarness | SqliteHarness:
    """One implementation after the other."""
    clock = ManualClock()
    return MemoryHarness(clock) if request.param == "memory" else SqliteHarness(clock, tmp_path / "state")


HOLD = Hold(HoldId("h1"), (Leg(A, ALL_METRICS), Leg(AccountId("b"), (True, False, True, False, True))), Amounts(7, 1))


async def test_a2_commits_are_numbered_and_chained_in_the_order_of_the_calls(harness) -> None:
    """Whatever is awaited first: the record of the earlier call comes first, without gaps, in one chain."""
    store = harness.open()
    waits = [store.commit([event(number), event(number + 1)]) for number in range(0, 200, 2)]
    await asyncio.gather(*reversed(waits))
    records = [one.record for one in await store.pending_after(0, 1000)]
    previous = GENESIS
    for sequence, record in enumerate(records, start=1):
        assert broken_link(record, sequence, previous) is None
        assert f'"number":{sequence - 1}'.encode() in record.body
        previous = record.digest
    assert len(records) == 200
    await store.close()


async def test_a_deferred_commit_comes_before_the_next_one_and_needs_none(harness) -> None:
    """It shares the sync of what is asked for after it, in the order of the calls; alone it becomes durable too."""
    store = harness.open()
    settled = asyncio.ensure_future(store.commit([event(1)], [put_account(1)], essential=True, deferred=True))
    await store.commit([event(2)], [put_account(2)])
    assert settled.done()
    await asyncio.wait_for(store.commit([event(3)], [put_account(3)], essential=True, deferred=True), 30)
    bodies = [one.record.body for one in await store.pending_after(0, 10)]
    assert [f'"number":{number}'.encode() in body for number, body in enumerate(bodies, start=1)] == [True] * 3
    assert [put_account(3)] == list(store.load().accounts)
    await store.close()


async def test_closing_writes_what_was_deferred(harness) -> None:
    """Nothing that was decided is lost by a stop in good order."""
    store = harness.open()
    await store.commit([event(1)])
    last = asyncio.ensure_future(store.commit([event(2)], [put_account(2)], essential=True, deferred=True))
    await store.close()
    await last
    store = harness.open()
    assert [put_account(2)] == list(store.load().accounts)
    assert len(await store.pending_after(0, 10)) == 2
    await store.close()


async def test_everything_that_was_committed_is_there_after_reopening(harness) -> None:
    """State comes back as it was put, and reading it twice gives the same (B7)."""
    store = harness.open()
    core = await Core(store, harness.clock).recover()
    lease = await core.lease()
    entry = Revocation(1, ByLease("leases/x"), "note", "alice", 5)
    asked = PutRequest("acquire|i|s", "id", b"f" * 32, lease.name, 9)
    await store.commit([event(1)], [put_account(5), PutHold(HOLD, "a", carve=True), PutRevocation(entry), asked])
    await store.close()
    store = harness.open()
    for _ in range(2):
        state = store.load()
        assert [lease] == [one for one, _ in state.leases]
        assert [core.books.digest_of[lease.name]] == [digest for _, digest in state.leases]
        assert [put_account(5)] == list(state.accounts)
        assert [PutHold(HOLD, "a", carve=True)] == list(state.holds)
        assert asked in list(state.requests)
        assert [entry] == list(state.revocations)
    await store.commit([], [DropLease(lease.name), DropHold(HOLD.id), DropAccount(A), DropRequest("acquire|i|s", "id")])
    await store.close()
    store = harness.open()
    state = store.load()
    assert (list(state.leases), list(state.holds), list(state.accounts)) == ([], [], [])
    assert asked not in list(state.requests)
    await store.close()


async def test_an_entry_is_dropped_replaced_and_set_aside_under_a_negative_number(harness) -> None:
    """The last word on a number counts, in one commit or in several, and they come back in order of it."""
    store = harness.open()
    first, second = (
        Revocation(1, ByLease("leases/x"), "", "alice", 5),
        Revocation(2, ByLease("leases/y"), "", "alice", 5),
    )
    aside, anew = replace(second, epoch=-1), replace(second, note="anew")
    await store.commit([], [PutRevocation(first), PutRevocation(second)])
    await store.commit([], [DropRevocation(2), PutRevocation(aside)])
    await store.close()
    store = harness.open()
    assert list(store.load().revocations) == [aside, first]
    dropped = [PutRevocation(replace(first, epoch=3)), DropRevocation(3)]
    await store.commit(
        [], [DropRevocation(1), PutRevocation(replace(first, note="other")), PutRevocation(anew), *dropped]
    )
    await store.close()
    store = harness.open()
    assert list(store.load().revocations) == [aside, replace(first, note="other"), anew]
    await store.close()


async def test_a_change_of_a_cap_is_dropped_replaced_and_set_aside_too(harness) -> None:
    """The same: what was set aside comes back before what counts."""
    store = harness.open()
    first = BudgetChange(1, "b", Metric.COST_MICRO_USD, Direction.LOWER, 300, 0, "", "alice", "r1", 5)
    second, aside, anew = replace(first, number=2), replace(first, number=-1), replace(first, number=2, cap=7)
    await store.commit([], [PutBudgetChange(first), PutBudgetChange(second)])
    await store.commit([], [DropBudgetChange(2), PutBudgetChange(aside)])
    await store.close()
    store = harness.open()
    assert list(store.load().budget_changes) == [aside, first]
    await store.commit([], [PutBudgetChange(second), DropBudgetChange(2), PutBudgetChange(anew)])
    await store.close()
    store = harness.open()
    assert list(store.load().budget_changes) == [aside, first, anew]
    await store.commit([], [DropBudgetChange(-1)])
    await store.close()
    store = harness.open()
    assert list(store.load().budget_changes) == [first, anew]
    await store.close()


async def test_engine_leases_survive_until_they_are_dropped(harness) -> None:
    """What an engine made is remembered as it was written last, over a restart, until it is dropped."""
    store = harness.open()
    first = EngineLease("id-1", "orders-db", 1, "", "accessor-1", "", 5)
    claimed = replace(first, lease="leases/1", engine_lease="database/creds/x/1", renewable=True)
    other = EngineLease("id-2", "orders-db", 1, "", "accessor-2", "", 6)
    await store.commit([], [PutEngineLease(first), PutEngineLease(other)])
    await store.commit([], [PutEngineLease(claimed)])
    await store.close()
    store = harness.open()
    assert list(store.load().engine_leases) == [claimed, other]
    await store.commit([], [DropEngineLease("id-1"), DropEngineLease("id-unknown")])
    await store.close()
    store = harness.open()
    assert list(store.load().engine_leases) == [other]
    await store.close()


async def test_key_marks_survive_until_the_next_version(harness) -> None:
    """A mark is there after reopening; the newest of its kind wins; those of an older version go with the next."""
    store = harness.open()
    used, later = KeyMark("k", 1, KeyMarkKind.USED, 10), KeyMark("k", 1, KeyMarkKind.USED, 20)
    exposed, other = KeyMark("k", 1, KeyMarkKind.EXPOSED, 11, "leases/1"), KeyMark("o", 1, KeyMarkKind.USED, 9)
    await store.commit([], [PutKeyMark(used), PutKeyMark(exposed), PutKeyMark(other)])
    await store.commit([], [PutKeyMark(later)])
    await store.close()
    store = harness.open()
    assert {later, exposed, other} == set(store.load().key_marks)
    fresh = KeyMark("k", 2, KeyMarkKind.USED, 30)
    await store.commit([], [PutKeyMark(fresh)])
    assert {fresh, other} == set(store.load().key_marks)
    await store.close()


async def test_first_showings_survive_and_go_once_they_have_run_out(harness) -> None:
    """A showing is there after reopening, with its last holder; the next one sweeps out what has run out."""
    store = harness.open()
    old, long, again = Showing("t", "a", "", 1_000), Showing("t", "b", "uid:1", 9_000), Showing("u", "b", "", 9_000)
    await store.commit([], [PutShowing(old, 500)])
    await store.commit([], [PutShowing(long, 900), PutShowing(again, 900)])
    await store.close()
    store = harness.open()
    assert {old, long, again} == set(store.load().showings)
    fresh = Showing("t", "c", "", 9_500)
    await store.commit([], [PutShowing(fresh, 2_000)])
    assert {long, again, fresh} == set(store.load().showings)
    await store.close()


async def test_changes_of_one_turn_apply_in_order(harness) -> None:
    """The later change to the same thing wins, and a hold that came and went is not there."""
    store = harness.open()
    await asyncio.gather(
        store.commit([], [put_account(1), PutHold(HOLD, "a")]),
        store.commit([], [DropHold(HOLD.id), put_account(2)]),
        store.commit([], [put_account(3)]),
    )
    state = store.load()
    assert ([put_account(3)], []) == (list(state.accounts), list(state.holds))
    await store.close()


async def test_a_lease_put_again_without_a_digest_keeps_its_token(harness) -> None:
    """An ending does not know the token and must not lose it."""
    store = harness.open()
    core = await Core(store, harness.clock).recover()
    lease = await core.lease()
    await store.commit([], [PutLease(lease.frozen())])
    ((stored, digest),) = store.load().leases
    assert (lease.frozen(), core.books.digest_of[lease.name]) == (stored, digest)
    await store.close()


async def test_a1_a_failed_commit_stores_nothing_and_leaves_no_hole(harness) -> None:
    """Events and changes fail together; the next record follows the last one that was stored."""
    store = harness.open()
    await store.commit([event(1)], [put_account(1)])
    harness.break_disk(store)
    with pytest.raises(Refusal) as caught:
        await store.commit([event(2, padding=100_000)], [put_account(2)])
    assert caught.value.reason == Reason.AUDIT_SPOOL_FULL
    harness.mend_disk(store)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [put_account(1)] == list(store.load().accounts)
    await store.commit([event(3)])
    records = [one.record for one in await store.pending_after(0, 10)]
    assert [record.sequence for record in records] == [1, 2]
    assert records[1].previous_digest == records[0].digest
    await store.close()


async def test_a_commit_called_before_a_failure_was_known_fails_with_it(harness) -> None:
    """No change overtakes one that it was built on, even where it would have found room itself."""
    store = harness.open()
    await store.commit([event(1)])
    harness.break_disk(store)
    outcomes: list[bool] = []

    async def chain_of_two() -> None:
        first = asyncio.ensure_future(store.commit([event(2, padding=100_000)], [put_account(2)]))
        # Called in the very turn in which the failure is being told, before this task has seen it.
        first.add_done_callback(lambda _: late.append(asyncio.ensure_future(store.commit([], [put_account(3)]))))
        late: list[asyncio.Future[None]] = []
        with pytest.raises(Refusal):
            await first
        harness.mend_disk(store)
        outcomes.append(isinstance((await asyncio.gather(*late, return_exceptions=True))[0], Refusal))

    await chain_of_two()
    assert outcomes == [True]
    await asyncio.sleep(0)  # the turn of the failure ends; since Python 3.12, gathering what is done does not end it
    await store.commit([event(4)], [put_account(4)])
    assert [put_account(4)] == list(store.load().accounts)
    await store.close()


async def test_a_full_spool_refuses_what_could_wait_and_takes_endings(harness) -> None:
    """Settlements and revocations are written in the reserve; grants are refused until the collector has taken some."""
    store = harness.open(spool_bytes_max=2000)
    with pytest.raises(Refusal) as caught:
        await commit_until_refused(store, padding=100)
    assert caught.value.reason == Reason.AUDIT_SPOOL_FULL
    await store.commit([event(7)], [put_account(7)], essential=True)
    await store.commit([], [put_account(8)])
    pending = await store.pending_after(0, 1000)
    await store.acknowledge(pending[-1].position)
    await store.commit([event(8)])
    assert len(await store.pending_after(0, 10)) == 1
    await store.close()


async def test_a3_only_what_was_acknowledged_is_forgotten(harness) -> None:
    """Positions are never used again, not after an acknowledgement and not by a later life."""
    store = harness.open()
    await store.commit([event(1), event(2), event(3)])
    first, second, third = (one.position for one in await store.pending_after(0, 10))
    assert [second] == [one.position for one in await store.pending_after(first, 1)]
    await store.acknowledge(second)
    assert [third] == [one.position for one in await store.pending_after(0, 10)]
    await store.acknowledge(third)
    await store.close()
    store = harness.open()
    await store.commit([event(4)])
    (fourth,) = await store.pending_after(0, 10)
    assert fourth.position > third
    await store.close()


async def test_a_link_that_lags_behind_gets_every_record_in_order(harness) -> None:
    """However many became durable meanwhile, and however few are asked for at once: none twice, none left out."""
    store = harness.open()
    for first in range(0, 3000, 100):
        await store.commit([event(number) for number in range(first, first + 100)])
    found: list[int] = []
    position = 0
    while page := await store.pending_after(position, 137):
        assert [one.position for one in page] == list(range(page[0].position, page[0].position + len(page)))
        found += [one.record.sequence for one in page]
        position = page[-1].position
        if len(found) in {137, 2055}:
            await store.acknowledge(position)
    assert found == list(range(1, 3001))
    assert [one.record.sequence for one in await store.pending_after(0, 1)] == [2056]
    await store.commit([event(3000)])
    assert [one.record.sequence for one in await store.pending_after(position, 10)] == [3001]
    await store.close()


async def test_waiting_for_more_ends_with_the_next_durable_record(harness) -> None:
    """Who waits is woken by a commit, and does not wait for what is there."""
    store = harness.open()
    await store.commit([event(1)])
    await asyncio.wait_for(store.wait_for_more(0), 60)
    (first,) = await store.pending_after(0, 10)
    waiting = asyncio.ensure_future(store.wait_for_more(first.position))
    await asyncio.sleep(0)
    assert not waiting.done()
    await store.commit([event(2)])
    await asyncio.wait_for(waiting, 60)
    await store.close()


async def test_each_opening_is_a_new_life_of_the_stream(harness) -> None:
    """A new epoch starts at sequence 1 from the beginning of the chain; the old records still wait before it."""
    store = harness.open()
    await store.commit([event(1)])
    await store.close()
    store = harness.open()
    await store.commit([event(2)])
    old, new = (one.record for one in await store.pending_after(0, 10))
    assert old.epoch < new.epoch
    assert (new.sequence, new.previous_digest) == (1, GENESIS)
    await store.close()


@pytest.mark.parametrize("set_back_seconds", [0, 1000])
async def test_a_reboot_never_makes_a_lease_live_longer(harness, monkeypatch, set_back_seconds: int) -> None:
    """Deadlines follow the wall clock's labels once, bounded by the lease's own life; then the boot clock again."""
    store = harness.open()
    core = await Core(store, harness.clock).recover()
    lease = await core.lease(ttl_seconds=100)
    await store.close()
    harness.clock.advance(40)
    harness.clock.boot_ns = 5 * NANOS
    harness.clock.wall_ms -= set_back_seconds * 1000
    harness.reboot(monkeypatch)
    store = harness.open()
    ((found, _),) = store.load().leases
    left = found.expire_ns - 5 * NANOS
    assert (100 if set_back_seconds else 60) * NANOS == left
    assert found.max_expire_ns - 5 * NANOS <= lease.max_expire_ns - lease.expire_ns + 100 * NANOS
    await store.close()
    # A second start in the same boot finds the translated deadline, whatever the wall clock does.
    harness.clock.wall_ms -= 3600 * 1000
    store = harness.open()
    assert [found] == [one for one, _ in store.load().leases]
    await store.close()
