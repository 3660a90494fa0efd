"""The operators' doors over a real server: who may do what, strict words, pages, watches, tails."""

import asyncio
import os
import uuid

import grpc
import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.fakes.centre import Centre, Operator, Sidecar, SpeakingTokens, eventually
from tests.fakes.streams import Emitter

from leasehold.v1 import audit_service_pb2 as audit_pb
from leasehold.v1 import revocation_service_pb2 as pb
from leasehold_broker.adapters.collector_link.streams import reason_of
from leasehold_broker.collector.access import Sidecars
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.collector_rules import Role, SidecarRule
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.revocation_progress import LiveLease


def wish(**selector) -> pb.RevokeLeasesRequest:
    """A request with a fresh id."""
    return pb.RevokeLeasesRequest(request_id=str(uuid.uuid4()), selector=pb.RevocationSelector(**selector), note="n")


async def refusal(call) -> Reason | None:
    """The reason in the answer of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return reason_of(failed.value)


async def test_a_responder_revokes_and_watches_until_it_is_complete(tmp_path):
    """Revoke, get, list and watch agree, and the event names who did it."""
    async with (
        asyncio.timeout(240),
        Centre(tmp_path) as centre,
        Sidecar(centre.target) as sidecar,
        Operator(centre.target, "alice/responder") as alice,
    ):
        await eventually(lambda: centre.fleet.connected_count() == 1)
        answer = await alice.revocations.RevokeLeases(wish(key="anthropic-prod"), **alice.how)
        entry = answer.progress.entry
        assert (entry.name, entry.epoch, entry.selector.key) == ("revocations/1", 1, "anthropic-prod")
        assert entry.revoked_by == "alice (https://issuer.test)"
        watch = alice.revocations.WatchRevocation(pb.WatchRevocationRequest(name=entry.name), **alice.how)
        steps = [step.progress async for step in watch]
        assert steps[-1].complete
        assert [row.applied_epoch for row in steps[-1].sidecars] == [1]
        got = await alice.revocations.GetRevocation(pb.GetRevocationRequest(name=entry.name), **alice.how)
        assert got.progress == steps[-1] or got.progress.complete
        listed = await alice.revocations.ListRevocations(pb.ListRevocationsRequest(), **alice.how)
        assert [one.name for one in listed.revocations] == ["revocations/1"]
        assert [one.epoch for one in sidecar.sink.applied] == [1]
        events = await centre.store.page(EventFilter(type="revocation.issued", key="anthropic-prod"), 0, 9)
        assert msgspec.json.decode(events[0].record.body)["subject"]["subject"] == "alice"


async def test_a_repeated_request_is_the_same_revocation(tmp_path):
    """The same id gives the same entry; with another selector it is refused."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre, Operator(centre.target, "a/responder") as alice:
        request = wish(provider="openai")
        first = await alice.revocations.RevokeLeases(request, **alice.how)
        second = await alice.revocations.RevokeLeases(request, **alice.how)
        assert first.progress.entry == second.progress.entry
        request.selector.provider = "gemini"
        reason = await refusal(alice.revocations.RevokeLeases(request, **alice.how))
        assert reason is Reason.REQUEST_ID_REUSED
        assert centre.store.epoch() == 1


async def test_a_block_is_pushed_and_lifted_by_a_responder(tmp_path):
    """Both entries reach the sidecar in order, with who and why; an auditor may not lift."""
    async with (
        asyncio.timeout(240),
        Centre(tmp_path) as centre,
        Sidecar(centre.target) as sidecar,
        Operator(centre.target, "alice/responder") as alice,
        Operator(centre.target, "bob/auditor") as bob,
    ):
        await eventually(lambda: centre.fleet.connected_count() == 1)
        request = wish(sidecar="sidecar-1")
        request.block_new, request.cause = True, pb.REVOCATION_CAUSE_DRILL
        blocked = (await alice.revocations.RevokeLeases(request, **alice.how)).progress.entry
        assert (blocked.block_new, blocked.HasField("block_duration")) == (True, False)
        lift = pb.LiftRevocationRequest(request_id=str(uuid.uuid4()), name=blocked.name, note="over")
        assert await refusal(bob.revocations.LiftRevocation(lift, **bob.how)) is Reason.OPERATOR_NOT_ALLOWED
        first = await alice.revocations.LiftRevocation(lift, **alice.how)
        lifted = first.progress.entry
        assert (lifted.lifts_epoch, lifted.note, first.already_lifted) == (1, "over", False)
        lift.request_id, lift.note = str(uuid.uuid4()), "over again"
        again = await alice.revocations.LiftRevocation(lift, **alice.how)
        assert (again.progress.entry, again.already_lifted, centre.store.epoch()) == (lifted, True, 2)
        await eventually(lambda: len(sidecar.sink.applied) == 2)
        assert [(one.order.block_new, one.order.lifts) for one in sidecar.sink.applied] == [(True, 0), (False, 1)]
        events = await centre.store.page(EventFilter(type="revocation.issued"), 0, 9)
        details = [msgspec.json.decode(event.record.body)["details"] for event in events]
        assert [(one.get("cause"), one.get("lifts"), one["note"]) for one in details] == [
            ("DRILL", None, "n"),
            (None, 1, "over"),
        ]


@pytest.mark.parametrize(
    "request_",
    [
        pb.RevokeLeasesRequest(request_id=str(uuid.uuid4())),
        pb.RevokeLeasesRequest(request_id="7", selector=pb.RevocationSelector(key="k")),
        wish(everything=False),
        wish(key=""),
        wish(key="a\nb"),
        wish(key="k" * 257),
        wish(lease="lhs_something-that-is-a-token"),
        wish(subject=pb.SubjectSelector(subject="*")),
        wish(subject=pb.SubjectSelector(subject="a*b")),
        wish(subject=pb.SubjectSelector(issuer="https://x")),
        pb.RevokeLeasesRequest(request_id=str(uuid.uuid4()), selector=pb.RevocationSelector(key="k"), note="x" * 501),
        pb.RevokeLeasesRequest(request_id=str(uuid.uuid4()), selector=pb.RevocationSelector(key="k"), note="a\x1b[0m"),
    ],
)
async def test_a_wish_that_is_not_clear_is_refused(tmp_path, request_):
    """Nothing is revoked by a guess; the answer is FIELD_INVALID and the refusal is an event."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre, Operator(centre.target, "a/responder") as alice:
        assert await refusal(alice.revocations.RevokeLeases(request_, **alice.how)) is Reason.FIELD_INVALID
        assert centre.store.epoch() == 0
        assert len(await centre.store.page(EventFilter(type="revocation.refused"), 0, 9)) == 1


async def test_roles_are_kept_apart(tmp_path):
    """An auditor reads and cannot revoke; a caller without a role gets nothing; a sidecar is no operator."""
    async with (
        asyncio.timeout(240),
        Centre(tmp_path) as centre,
        Operator(centre.target, "eve/auditor") as eve,
        Operator(centre.target, "sidecar-1") as nobody,
    ):
        denied = Reason.OPERATOR_NOT_ALLOWED
        assert await refusal(eve.revocations.RevokeLeases(wish(everything=True), **eve.how)) is denied
        await eve.audit.ListEvents(audit_pb.ListEventsRequest(), **eve.how)
        await eve.revocations.ListRevocations(pb.ListRevocationsRequest(), **eve.how)
        assert await refusal(nobody.audit.ListStreams(audit_pb.ListStreamsRequest(), **nobody.how)) is denied
        assert await refusal(nobody.revocations.RevokeLeases(wish(everything=True), **nobody.how)) is denied
        assert centre.store.epoch() == 0


async def test_a_local_uid_is_an_operator_when_configured(tmp_path):
    """Without a token, the kernel's word for the uid counts, and only for the roles configured for it."""
    uids = {os.getuid(): frozenset({Role.AUDITOR})}
    how = {"metadata": (("leasehold", "1"),), "timeout": 10.0}
    async with asyncio.timeout(240):
        async with Centre(tmp_path, uids=uids) as centre, Operator(centre.target, "") as local:
            await local.audit.ListStreams(audit_pb.ListStreamsRequest(), **how)
            reason = await refusal(local.revocations.RevokeLeases(wish(everything=True), **how))
            assert reason is Reason.OPERATOR_NOT_ALLOWED
        async with Centre(tmp_path, "c2") as centre, Operator(centre.target, "") as local:
            reason = await refusal(local.audit.ListStreams(audit_pb.ListStreamsRequest(), **how))
            assert reason is Reason.OPERATOR_NOT_ALLOWED


async def test_events_are_listed_in_pages_that_come_to_an_end(tmp_path):
    """Every record once, in order, though reading adds events; a token is good for its own question only."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre, Operator(centre.target, "eve/auditor") as eve:
        await centre.ingest.run("sidecar-1", Emitter().calls(120))
        positions: list[int] = []
        token = ""
        while True:
            request = audit_pb.ListEventsRequest(page_size=50, page_token=token)
            answer = await eve.audit.ListEvents(request, **eve.how)
            positions.extend(one.position for one in answer.events)
            token = answer.next_page_token
            if not token:
                break
            other = audit_pb.ListEventsRequest(page_token=token, lease="leases/other")
            assert await refusal(eve.audit.ListEvents(other, **eve.how)) is Reason.FIELD_INVALID
        assert positions == list(range(1, 122))
        read = await centre.store.page(EventFilter(type="audit.read"), 0, 99)
        assert len(read) >= 3
        for bad in ("x", "AAAA", "!!", "A" * 400):
            request = audit_pb.ListEventsRequest(page_token=bad)
            assert await refusal(eve.audit.ListEvents(request, **eve.how)) is Reason.FIELD_INVALID


async def test_events_are_filtered_over_the_wire(tmp_path):
    """Filters and times arrive as they were meant."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre, Operator(centre.target, "eve/auditor") as eve:
        await centre.ingest.run("sidecar-1", Emitter().calls(10))
        request = audit_pb.ListEventsRequest(
            stream="sidecar-1",
            type="call.",
            start_time=Timestamp(seconds=1_700_000_000, nanos=3_000_000),
            end_time=Timestamp(seconds=1_700_000_000, nanos=6_000_000),
        )
        answer = await eve.audit.ListEvents(request, **eve.how)
        assert [one.record.sequence for one in answer.events] == [3, 4, 5]
        assert answer.next_page_token == ""


async def test_the_tail_follows_the_log(tmp_path):
    """From a position, everything after it, in order, old and new."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre, Operator(centre.target, "eve/auditor") as eve:
        emitter = Emitter()
        await centre.ingest.run("sidecar-1", emitter.calls(3))
        tail = eve.audit.WatchEvents(audit_pb.WatchEventsRequest(after_position=1), **eve.how)
        seen: list[int] = []
        async for answer in tail:
            seen.extend(one.position for one in answer.events)
            if len(seen) == 3:
                await centre.ingest.run("sidecar-1", emitter.calls(2))
            if len(seen) >= 5:
                break
        tail.cancel()
        assert seen == [2, 3, 4, 5, 6]
        heads = await eve.audit.ListStreams(audit_pb.ListStreamsRequest(), **eve.how)
        assert [(head.stream, head.sequence) for head in heads.heads] == [("collector", 1), ("sidecar-1", 5)]


async def test_unknown_revocations_are_not_found(tmp_path):
    """Get and watch of what does not exist say so."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre, Operator(centre.target, "a/responder") as alice:
        for name in ("revocations/7", "revocations/", "7", "revocations/-1", "revocations/" + "9" * 30):
            reason = await refusal(alice.revocations.GetRevocation(pb.GetRevocationRequest(name=name), **alice.how))
            assert reason is Reason.REVOCATION_NOT_FOUND
        watch = alice.revocations.WatchRevocation(pb.WatchRevocationRequest(name="revocations/7"), **alice.how)
        assert await refusal(watch.read()) is Reason.REVOCATION_NOT_FOUND


async def test_revocations_are_listed_newest_first_in_pages(tmp_path):
    """Pages follow each other without repeats."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre, Operator(centre.target, "a/responder") as alice:
        for number in range(5):
            await alice.revocations.RevokeLeases(wish(key=f"k{number}"), **alice.how)
        epochs: list[int] = []
        token = ""
        while True:
            request = pb.ListRevocationsRequest(page_size=2, page_token=token)
            answer = await alice.revocations.ListRevocations(request, **alice.how)
            epochs.extend(one.epoch for one in answer.revocations)
            token = answer.next_page_token
            if not token:
                break
        assert epochs == [5, 4, 3, 2, 1]


def test_one_identity_is_one_sidecar():
    """A configuration that gives one identity two names is refused."""
    rules = [SidecarRule("i", "s", "a"), SidecarRule("i", "s", "b")]
    with pytest.raises(ValueError, match="two sidecars"):
        Sidecars(SpeakingTokens(), rules)


async def test_several_are_revoked_by_one_request_and_watched_as_one(tmp_path):
    """They reach the sidecar in order; the watch adds up what they ended; the answer counts for each of them."""
    async with (
        asyncio.timeout(60),
        Centre(tmp_path) as centre,
        Sidecar(centre.target) as sidecar,
        Operator(centre.target, "alice/responder") as alice,
    ):
        sidecar.leases = [LiveLease("leases/1", "", "leases/1", "i", "agents/a", "test", ("key",), ("openai",))]
        await eventually(lambda: centre.fleet.members and centre.fleet.members["sidecar-1"].live.total == 1)
        request = pb.RevokeLeasesRequest(request_id=str(uuid.uuid4()), note="incident")
        for subject in ("agents/a", "agents/b", "agents/*"):
            request.selectors.add(subject=pb.SubjectSelector(subject=subject))
        request.validate_only = True
        dry = await alice.revocations.RevokeLeases(request, **alice.how)
        assert (list(dry.selector_leases), list(dry.matching_leases)) == ([1, 0, 1], ["leases/1"])
        assert [(one.subject, one.leases) for one in dry.holders] == [("agents/a", 1)]
        assert (dry.first_name, dry.HasField("progress"), centre.store.epoch()) == ("", False, 0)

        request.validate_only = False
        answer = await alice.revocations.RevokeLeases(request, **alice.how)
        assert (answer.first_name, answer.progress.entry.name) == ("revocations/1", "revocations/3")
        wanted = pb.WatchRevocationRequest(name="revocations/3", first_name=answer.first_name, changes_only=True)
        steps = [step async for step in alice.revocations.WatchRevocation(wanted, **alice.how)]
        assert not steps[0].changes_only
        assert steps[-1].progress.complete
        (row,) = steps[-1].progress.sidecars
        assert (row.applied_epoch, row.leases_ended, row.calls_cut) == (3, 6, 3)
        assert [entry.selector.subject for entry in sidecar.sink.applied] == ["agents/a", "agents/b", "agents/*"]


async def test_several_are_lifted_by_one_request(tmp_path):
    """One push of both; each is told by its name; an auditor lifts none, and `name` beside `names` is refused."""
    async with (
        asyncio.timeout(240),
        Centre(tmp_path) as centre,
        Sidecar(centre.target) as sidecar,
        Operator(centre.target, "alice/responder") as alice,
        Operator(centre.target, "bob/auditor") as bob,
    ):
        await eventually(lambda: centre.fleet.connected_count() == 1)
        request = pb.RevokeLeasesRequest(request_id=str(uuid.uuid4()), block_new=True)
        request.selectors.extend(pb.RevocationSelector(key=f"k{number}") for number in range(3))
        await alice.revocations.RevokeLeases(request, **alice.how)
        names = [f"revocations/{epoch}" for epoch in (1, 2, 3)]
        lift = pb.LiftRevocationRequest(request_id=str(uuid.uuid4()), names=names[:2])
        assert await refusal(bob.revocations.LiftRevocation(lift, **bob.how)) is Reason.OPERATOR_NOT_ALLOWED
        both = pb.LiftRevocationRequest(request_id=str(uuid.uuid4()), name=names[0], names=names[:2])
        assert await refusal(alice.revocations.LiftRevocation(both, **alice.how)) is Reason.FIELD_INVALID
        assert centre.store.epoch() == 3
        answer = await alice.revocations.LiftRevocation(lift, **alice.how)
        assert [(one.name, one.lifted_by.lifts_epoch, one.already_lifted) for one in answer.blocks] == [
            (names[0], 1, False),
            (names[1], 2, False),
        ]
        assert (answer.progress.entry.epoch, answer.already_lifted) == (5, False)
        lift.request_id = str(uuid.uuid4())
        lift.names.append(names[2])
        again = await alice.revocations.LiftRevocation(lift, **alice.how)
        assert [(one.lifted_by.epoch, one.already_lifted) for one in again.blocks] == [(4, True), (5, True), (6, False)]
        await eventually(lambda: len(sidecar.sink.applied) == 6)
        assert [entry.order.lifts for entry in sidecar.sink.applied] == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("beside", ["selector", "rotate_key", "disable_key"])
async def test_what_goes_with_one_key_does_not_go_with_several_selectors(tmp_path, beside):
    """Refused, and nothing is revoked."""
    async with asyncio.timeout(60), Centre(tmp_path) as centre, Operator(centre.target, "a/responder") as alice:
        request = pb.RevokeLeasesRequest(request_id=str(uuid.uuid4()), selectors=[pb.RevocationSelector(key="k")])
        if beside == "selector":
            request.selector.key = "k"
        else:
            setattr(request, beside, True)
        assert await refusal(alice.revocations.RevokeLeases(request, **alice.how)) is Reason.FIELD_INVALID
        assert centre.store.epoch() == 0


async def test_an_auditor_does_not_revoke_several(tmp_path):
    """The role is asked for before anything is read."""
    async with asyncio.timeout(60), Centre(tmp_path) as centre, Operator(centre.target, "a/auditor") as auditor:
        request = pb.RevokeLeasesRequest(request_id=str(uuid.uuid4()), selectors=[pb.RevocationSelector(key="k")])
        assert await refusal(auditor.revocations.RevokeLeases(request, **auditor.how)) is Reason.OPERATOR_NOT_ALLOWED
        assert centre.store.epoch() == 0
