"""Several selectors in one request: all or none, each an entry of its own, counted and limited together."""

import pytest
from tests.fakes.asking import logged, refused
from tests.fakes.core import ISSUER, KEY, PEER, Core, fresh_id, identity, request
from tests.flows.test_blocks import RESPONDER, Alone

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import ByKey, ByLabel, ByLease, BySubject, Everything, Order, Revocation
from leasehold_broker.flows.issue_revocation import SELECTORS_MAX


async def acquired(core: Core, *subjects: str) -> dict[str, str]:
    """A lease of each; its name."""
    names = {}
    for subject in subjects:
        given = await core.acquire.run(identity(subject), PEER, request(), fresh_id(), validate_only=False)
        names[subject] = given.lease.name
    return names


async def several(alone: Alone, *selectors, **more):
    """Revoke them as alice."""
    return await alone.issue.run_all(RESPONDER, fresh_id(), selectors, "drill", **({"validate_only": False} | more))


async def test_each_selector_is_an_entry_and_what_they_end_is_added_up(core):
    """Only what they match dies; the answer tells of the last, from the first."""
    names = await acquired(core, "agent-a", "agent-b", "agent-c")
    alone = Alone(core)
    await alone.revoke(BySubject("", "nobody"))

    issued = await several(
        alone, BySubject(ISSUER, "agent-a"), ByLease(names["agent-b"]), BySubject("", "agent-a*"), ByKey("none")
    )

    assert (issued.first_name, issued.progress.revocation.name) == ("revocations/2", "revocations/5")
    assert issued.progress.sidecars[0].leases_ended == 2
    assert [lease.ended for lease in map(core.books.leases.get, names.values())] == [True, True, False]
    events = logged(core, "revocation.issued")
    assert [event.details["epoch"] for event in events] == [1, 2, 3, 4, 5]
    assert {event.details["note"] for event in events} == {"drill"}


async def test_a_dry_run_counts_together_and_each(core):
    """A lease that two match counts once in all; nothing dies, and one event says that somebody looked."""
    names = await acquired(core, "agent-a", "agent-b")
    alone = Alone(core)
    issued = await several(alone, BySubject("", "agent-a"), ByKey(KEY.name), ByLabel("team", "x"), validate_only=True)
    assert (issued.progress, issued.first_name) == (None, "")
    assert sorted(issued.matching.names) == sorted(names.values())
    assert issued.matching.each == (1, 2, 0)
    assert not any(lease.ended for lease in core.books.leases.values())
    (event,) = logged(core, "revocation.validated")
    assert (event.details["selectors"], event.details["matching"]) == (3, 2)
    assert logged(core, "revocation.issued") == []


async def test_the_expected_count_is_of_all_together(core):
    """One lease more than expected: not one entry is issued."""
    await acquired(core, "agent-a", "agent-b")
    alone = Alone(core)
    chosen = BySubject("", "agent-a"), BySubject("", "agent-b")
    assert (await refused(several(alone, *chosen, leases_max=1))).reason is Reason.EXPECTED_COUNT_MISMATCH
    assert core.books.epoch == 0
    await several(alone, *chosen, leases_max=2)
    assert core.books.epoch == 2


@pytest.mark.parametrize(
    ("selectors", "words"),
    [
        ((), "1 to 1000"),
        ((ByKey("k"),) * (SELECTORS_MAX + 1), "1 to 1000"),
        ((ByKey("k"), Everything()), r"selectors\[1\]: is everything"),
        ((ByKey("k"), ByKey("")), r"selectors\[1\]: selector.key"),
        ((ByKey("k"), ByKey("l"), ByLease("token")), r"selectors\[2\]: selector.lease"),
        ((ByKey("k"), BySubject("", "*")), r"selectors\[1\]"),
    ],
)
async def test_one_that_is_wrong_is_named_by_its_place_and_none_is_issued(core, selectors, words):
    """Nothing is revoked by half."""
    with pytest.raises(Refusal, match=words) as failed:
        await several(Alone(core), *selectors)
    assert failed.value.reason is Reason.FIELD_INVALID
    assert core.books.epoch == 0
    assert logged(core, "revocation.issued") == []


async def test_the_same_request_is_the_same_revocations(core):
    """Asked again with the same id: the same entries; with others, nothing."""
    alone, wanted = Alone(core), fresh_id()

    async def ask(*selectors):
        return await alone.issue.run_all(RESPONDER, wanted, selectors, "drill", validate_only=False)

    first = await ask(ByKey("a"), ByKey("b"))
    again = await ask(ByKey("a"), ByKey("b"))
    assert (first.first_name, first.progress.revocation) == (again.first_name, again.progress.revocation)
    for other in ((ByKey("a"), ByKey("c")), (ByKey("a"), ByKey("b"), ByKey("c"))):
        assert (await refused(ask(*other))).reason is Reason.REQUEST_ID_REUSED
    assert core.books.epoch == 2


async def test_blocks_of_several_are_lifted_one_by_one(core):
    """Each keeps out its own."""
    alone = Alone(core)
    await several(alone, BySubject("", "agent-a"), BySubject("", "agent-b"), order=Order(block_new=True))
    for subject in ("agent-a", "agent-b"):
        assert (await refused(acquired(core, subject))).reason is Reason.SUBJECT_BLOCKED
    await alone.lift.run(RESPONDER, fresh_id(), "revocations/1", "mended")
    await acquired(core, "agent-a")
    assert (await refused(acquired(core, "agent-b"))).reason is Reason.SUBJECT_BLOCKED


@pytest.mark.parametrize("at_once", [True, False])
async def test_r2_a_burst_ends_what_its_entries_end_one_by_one(core, at_once):
    """Leases are looked up by name and subject in a burst: the same die, by the same entries."""
    names = await acquired(core, "agent-a", "agent-b", "agent-bb", "agent-c", "agent-d")
    selectors = [
        BySubject("", "agent-a"),
        BySubject("https://elsewhere.test", "agent-b"),
        BySubject("", "agent-bb"),
        BySubject("", "agent-b*"),
        ByLease(names["agent-c"]),
        ByLease("leases/unknown"),
        BySubject("", "nobody"),
    ]
    entries = [Revocation(epoch, one, "", "alice", 1) for epoch, one in enumerate(selectors, 1)]

    if at_once:
        applied = await core.revocations.apply(entries)
    else:
        applied = [(await core.revocations.apply([entry]))[0] for entry in entries]

    told = logged(core, "revocation.applied")
    assert [event.details["epoch"] for event in told] == ([7] if at_once else list(range(1, 8)))
    assert sum(event.details["leases_ended"] for event in told) == 4
    assert [(one.epoch, one.leases_ended) for one in applied] == list(enumerate([1, 0, 1, 1, 1, 0, 0], 1))
    assert [name for name, lease in names.items() if not core.books.leases[lease].ended] == ["agent-d"]
