"""What every engine promises of revocations: numbered, one with their events, the same in every life."""

import asyncio
from dataclasses import replace

import pytest

from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import PLAIN, ByKey, Everything, Order, Revocation
from leasehold_broker.domain.revocation_history import RevocationHistory
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.fleet_revocations import FleetRevocations
from leasehold_broker.ports.revocation_issuer import RevocationDraft
from leasehold_broker.ports.revocation_log import KnownSidecar, SidecarReport
from leasehold_broker.wire.event_body import decode_event

BLOCK, LIFT = Order(block_new=True), Order(lifts=1)


@pytest.fixture
async def store(engine):
    """An open store, empty."""
    async with engine.open() as opened:
        yield opened


def described(entry: Revocation) -> Event:
    """The event of an entry."""
    return Event(EventType.REVOCATION_ISSUED, entry.create_wall_ms, Outcome.ALLOWED, details={"epoch": entry.epoch})


def draft(request_id="r1", selector=None) -> RevocationDraft:
    """A responder's checked wish."""
    return RevocationDraft(selector or ByKey("k"), "leaked", "alice", request_id, 5)


async def test_the_history_is_that_of_its_entries_in_every_life(engine):
    """What sidecars are compared with covers each entry that was issued, repeats aside, also after reopening."""
    async with engine.open("c1") as first:
        assert len(first.history()) == 0
        made = [await first.issue(draft(f"r{number}", ByKey(f"k{number}")), described) for number in range(3)]
        await first.issue(draft("r0", ByKey("k0")), described)
        assert first.epoch() == len(first.history()) == 3
    async with engine.open("c2") as second:
        made.append(await second.issue(draft("r9"), described))
        assert (second.epoch(), len(second.history())) == (4, 4)
        wanted = RevocationHistory(made)
        assert [second.history().digest_at(n) for n in range(5)] == [wanted.digest_at(n) for n in range(5)]


async def test_a_history_longer_than_what_is_kept_in_memory_is_whole(engine):
    """The entries that are pushed from memory are the newest; digests are of all."""
    async with engine.open("c1") as store:
        made = await asyncio.gather(*(store.issue(draft(f"r{number}"), described) for number in range(1100)))
    wanted = RevocationHistory(sorted(made, key=lambda entry: entry.epoch)).digest_at(1100)
    async with engine.open("c2") as store:
        assert store.history().digest_at(store.epoch()) == wanted
        assert [entry.epoch for entry in await store.after(1095, 9)] == list(range(1096, 1101))


async def test_a_revocation_and_its_event_are_one(store):
    """Epochs count by one; a repeated request gives the same entry and no second event."""
    first = await store.issue(draft("r1"), described)
    again = await store.issue(draft("r1"), described)
    second = await store.issue(draft("r2", Everything()), described)
    assert (first.epoch, again.epoch, second.epoch) == (1, 1, 2)
    assert first == again
    assert [first, second] == list(await store.after(0, 10))
    assert [second, first] == list(await store.before(99, 10))
    assert len(await store.page(EventFilter(type="revocation.issued"), 0, 10)) == 2
    assert store.epoch() == 2


async def test_a_request_id_is_not_reused_for_another_selector(store):
    """The same id with another selector is refused and changes nothing."""
    await store.issue(draft("r1"), described)
    with pytest.raises(Refusal) as refused:
        await store.issue(draft("r1", Everything()), described)
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert store.epoch() == 1


async def test_a_failed_event_takes_its_revocation_back(store):
    """When the event cannot be written, the entry does not exist either."""

    def fails(_entry: Revocation) -> Event:
        raise Refusal(Reason.STORE_UNAVAILABLE, "no")

    with pytest.raises(Refusal):
        await store.issue(draft(), fails)
    assert await store.find(1) is None
    assert (await store.issue(draft(), described)).epoch == 1


async def test_what_lifts_an_entry_is_found_in_every_life(engine, monkeypatch):
    """The first of those that lift it, however far behind it; of what nobody lifts, none."""
    monkeypatch.setattr("leasehold_broker.flows.fleet_revocations.PAGE", 2)
    async with engine.open("c1") as first:
        for number, order in enumerate((BLOCK, BLOCK, PLAIN, PLAIN, PLAIN, LIFT, LIFT)):
            await first.issue(replace(draft(f"r{number}"), order=order), described)
        lifts = await FleetRevocations(Fleet(1.0), first, None).lifted_by([1, 2])
        assert {epoch: entry.epoch for epoch, entry in lifts.items()} == {1: 6}
    async with engine.open("c2") as second:
        issuer = FleetRevocations(Fleet(1.0), second, None)
        assert (await issuer.lifted_by([1]))[1].epoch == 6
        assert await issuer.lifted_by([2]) == {}


async def test_revocations_and_acknowledgements_survive(engine):
    """Entries, what they ended and who acknowledged them are there after reopening (R1)."""
    async with engine.open("c1") as first:
        entry = await first.issue(draft(), described)
        await first.heard(
            [
                SidecarReport(KnownSidecar("s1", "prod", "1", 1, 77, 9000), [AppliedRevocation(1, 3, 2)]),
                SidecarReport(KnownSidecar("s2", "prod", "1", 2, 77, 9000), [AppliedRevocation(2, 1, 0)]),
                SidecarReport(KnownSidecar("s3", "prod", "1", 2, 77, 9000), [AppliedRevocation(2, 0, 0)]),
            ]
        )
        await first.heard([SidecarReport(KnownSidecar("s1", "prod", "1", 0, 78, 4000), [AppliedRevocation(1, 1, 1)])])
        await first.heard([SidecarReport(KnownSidecar("s1", "prod", "1", 1, 78, 4000), [AppliedRevocation(2, 4, 3)])])
    async with engine.open("c2") as second:
        assert entry == await second.find(1)
        both = ["s1", "s2", "s3"]  # what ended nothing at the third leaves nothing
        assert {"s1": AppliedRevocation(1, 3, 2)} == await second.applied_between(1, 1, both)
        assert {"s2": AppliedRevocation(2, 1, 0)} == await second.applied_between(1, 2, ["s2"])
        ended = {"s1": AppliedRevocation(2, 7, 5), "s2": AppliedRevocation(2, 1, 0)}
        assert ended == await second.applied_between(1, 2, both)
        assert await second.applied_between(1, 2, []) == {}
        assert list(await second.sidecars()) == [
            KnownSidecar("s1", "prod", "1", 1, 78, 9000),
            KnownSidecar("s2", "prod", "1", 2, 77, 9000),
            KnownSidecar("s3", "prod", "1", 2, 77, 9000),
        ]
        assert [entry] == list(await second.after(0, 10))
        assert second.epoch() == 1


async def test_a_page_of_revocations_goes_on_from_any_epoch(store):
    """Entries come in order behind an epoch and before one, also more than memory keeps."""
    made = [await store.issue(draft(f"r{number}", ByKey(f"k{number}")), described) for number in range(12)]
    assert made[3:8] == list(await store.after(3, 5))
    assert list(reversed(made[:4])) == list(await store.before(5, 9))
    assert await store.after(12, 5) in ((), [])
    assert await store.find(13) is None


def several(*selectors, request_id="r1") -> list[RevocationDraft]:
    """What one responder asks for in one go."""
    return [draft(f"{request_id}/{place}", selector) for place, selector in enumerate(selectors)]


async def test_several_revocations_are_all_or_none(store):
    """They are numbered one after the other, each with its event; one that cannot be written takes all with it (R5)."""
    assert (await store.issue(draft("before"), described)).epoch == 1
    wanted = several(ByKey("a"), ByKey("b"), ByKey("c"))

    def fails(entry, asked):
        if asked is wanted[-1]:
            message = "planted"
            raise RuntimeError(message)
        return described(entry)

    with pytest.raises(RuntimeError, match="planted"):
        await store.issue_all(wanted, fails)
    entries, other = await asyncio.gather(
        store.issue_all(wanted, lambda entry, _: described(entry)), store.issue(draft("beside"), described)
    )
    assert [entry.selector for entry in entries] == [ByKey("a"), ByKey("b"), ByKey("c")]
    first = entries[0].epoch
    assert [entry.epoch for entry in entries] == [first, first + 1, first + 2]
    assert sorted({*(entry.epoch for entry in entries), other.epoch}) == [2, 3, 4, 5]
    assert [entry.epoch for entry in await store.after(0, 10)] == [1, 2, 3, 4, 5]
    assert len(store.history()) == 5
    issued = await store.page(EventFilter(type="revocation.issued"), 0, 10)
    assert [decode_event(one.record.body).details["epoch"] for one in issued] == [1, 2, 3, 4, 5]


async def test_several_that_are_asked_for_again_are_the_same_ones(store):
    """All of them, or it is another request: nothing of it is issued then."""
    wanted = several(ByKey("a"), ByKey("b"))
    entries = await store.issue_all(wanted, lambda entry, _: described(entry))
    assert await store.issue_all(wanted, lambda entry, _: described(entry)) == entries
    for other in (several(ByKey("a"), ByKey("c")), several(ByKey("a"), ByKey("b"), ByKey("c"))):
        with pytest.raises(Refusal) as refused:
            await store.issue_all(other, lambda entry, _: described(entry))
        assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert store.epoch() == 2
    assert (await store.issue(draft("after"), described)).epoch == 3
