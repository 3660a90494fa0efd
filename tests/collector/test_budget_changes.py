"""Changes of caps through a collector, over a real server and link: pushed in order, acknowledged, kept, refused."""

import asyncio
import uuid

import grpc
import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.fakes.centre import Centre, Operator, Sidecar, eventually

from leasehold.v1 import budget_service_pb2 as pb
from leasehold_broker.adapters.collector_link.streams import reason_of
from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.budget_changes import BudgetRow, BudgetRows
from leasehold_broker.domain.reasons import Reason

DAY = "on:key:anthropic-prod|day"
ROWS = BudgetRows((BudgetRow(DAY, Metric.COST_MICRO_USD, 700, 600, 0, 0, hard=True, changed=False),), 1)


def wish(cap: int = 900, **more) -> pb.ChangeBudgetRequest:
    """A raise with a fresh id and an end."""
    end = Timestamp()
    end.GetCurrentTime()
    end.seconds += 3600
    members = {
        "request_id": str(uuid.uuid4()),
        "budget": DAY,
        "metric": "cost_micro_usd",
        "direction": pb.BUDGET_DIRECTION_RAISE,
        "cap": cap,
        "end_time": end,
        "note": "n",
    } | more
    return pb.ChangeBudgetRequest(**members)


async def refusal(call) -> Reason | None:
    """The reason in the answer of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return reason_of(failed.value)


async def test_a_change_reaches_every_sidecar_and_each_says_so(tmp_path):
    """Issued once, applied by both in order, acknowledged, listed, and audited with who did it."""
    async with (
        asyncio.timeout(240),
        Centre(tmp_path) as centre,
        Sidecar(centre.target) as one,
        Sidecar(centre.target, "sidecar-2", epoch="e2") as two,
        Operator(centre.target, "alice/treasurer") as alice,
    ):
        one.budgets = two.budgets = ROWS
        await eventually(lambda: sum(member.budgets.total for member in centre.fleet.members.values()) == 2)
        first = await alice.budgets.ChangeBudget(wish(), **alice.how)
        await alice.budgets.ChangeBudget(wish(1000), **alice.how)
        await eventually(lambda: [member.applied_budget_change for member in centre.fleet.members.values()] == [2, 2])
        for sidecar in (one, two):
            assert [(change.number, change.cap) for change in sidecar.budget_sink.applied] == [(1, 900), (2, 1000)]
        listed = await alice.budgets.ListBudgets(pb.ListBudgetsRequest(), **alice.how)
        assert [(row.sidecar, row.connected, row.applied_number) for row in listed.sidecars] == [
            ("sidecar-1", True, 2),
            ("sidecar-2", True, 2),
        ]
        assert listed.sidecars[0].budgets.rows[0].settled == 600
        assert [(change.name, change.cap) for change in listed.changes] == [("budgetChanges/2", 1000)]
        assert first.change.changed_by == "alice (https://issuer.test)"
        events = await centre.store.page(EventFilter(type="budget.change_issued"), 0, 9)
        details = [msgspec.json.decode(event.record.body)["details"] for event in events]
        assert [(one["change"], one["cap"], one["changed_by"]) for one in details] == [
            (1, 900, "alice (https://issuer.test)"),
            (2, 1000, "alice (https://issuer.test)"),
        ]


async def test_a_collector_that_starts_again_knows_its_changes_and_pushes_what_is_missing(tmp_path):
    """Numbers go on, a repeated request is the same change, and a sidecar that was away gets all in order."""
    async with asyncio.timeout(240):
        request = wish()
        async with Centre(tmp_path) as centre, Operator(centre.target, "a/treasurer") as alice:
            async with Sidecar(centre.target) as sidecar:
                sidecar.budgets = ROWS
                await eventually(lambda: any(member.budgets.total for member in centre.fleet.members.values()))
            await alice.budgets.ChangeBudget(request, **alice.how)
        async with (
            Centre(tmp_path, "c2") as centre,
            Operator(centre.target, "a/treasurer") as alice,
            Sidecar(centre.target, epoch="e2") as sidecar,
        ):
            sidecar.budgets = ROWS
            await eventually(lambda: any(member.budgets.total for member in centre.fleet.members.values()))
            again = await alice.budgets.ChangeBudget(request, **alice.how)
            assert again.change.number == 1
            await alice.budgets.ChangeBudget(wish(800), **alice.how)
            await eventually(lambda: sidecar.budget_sink.applied_budget_change() == 2)
            assert [change.number for change in sidecar.budget_sink.applied] == [1, 2]
            request.cap = 901
            assert await refusal(alice.budgets.ChangeBudget(request, **alice.how)) is Reason.REQUEST_ID_REUSED
            assert centre.store.budget_change_number() == 2


@pytest.mark.parametrize(
    ("role", "request_", "reason"),
    [
        ("responder", wish(), Reason.OPERATOR_NOT_ALLOWED),
        ("auditor", wish(), Reason.OPERATOR_NOT_ALLOWED),
        ("auditor", wish(direction=pb.BUDGET_DIRECTION_LOWER), Reason.OPERATOR_NOT_ALLOWED),
        ("treasurer", wish(budget="on:key:none|day"), Reason.FIELD_INVALID),
        ("treasurer", wish(direction=pb.BUDGET_DIRECTION_UNSPECIFIED), Reason.FIELD_INVALID),
        ("treasurer", wish(metric="money"), Reason.FIELD_INVALID),
        ("treasurer", wish(note="sk-ant-" + "a" * 40), Reason.FIELD_INVALID),
    ],
)
async def test_a_refused_change_changes_nothing_and_is_audited(tmp_path, role, request_, reason):
    """Raising is the treasurer's; what names no budget, way or metric is refused; the refusal is an event."""
    async with (
        asyncio.timeout(240),
        Centre(tmp_path) as centre,
        Sidecar(centre.target) as sidecar,
        Operator(centre.target, f"alice/{role}") as alice,
    ):
        sidecar.budgets = ROWS
        await eventually(lambda: any(member.budgets.total for member in centre.fleet.members.values()))
        assert await refusal(alice.budgets.ChangeBudget(request_, **alice.how)) is reason
        assert centre.store.budget_change_number() == 0
        (event,) = await centre.store.page(EventFilter(type="budget.change_refused"), 0, 9)
        assert msgspec.json.decode(event.record.body)["reason"] == reason


async def test_a_responder_may_lower(tmp_path):
    """Who may stop spending may stop a part of it."""
    async with (
        asyncio.timeout(240),
        Centre(tmp_path) as centre,
        Sidecar(centre.target) as sidecar,
        Operator(centre.target, "alice/responder") as alice,
    ):
        sidecar.budgets = ROWS
        await eventually(lambda: any(member.budgets.total for member in centre.fleet.members.values()))
        lower = wish(0, direction=pb.BUDGET_DIRECTION_LOWER)
        lower.ClearField("end_time")
        answer = await alice.budgets.ChangeBudget(lower, **alice.how)
        assert (answer.change.cap, answer.change.HasField("end_time")) == (0, False)


async def test_a_sidecar_that_knows_more_changes_than_the_collector_is_refused(tmp_path):
    """A collector whose store was restored from an old copy must not go on as if nothing had happened."""
    async with asyncio.timeout(240):
        (tmp_path / "old").mkdir()
        async with (
            Centre(tmp_path) as centre,
            Operator(centre.target, "a/treasurer") as alice,
            Sidecar(centre.target) as sidecar,
        ):
            sidecar.budgets = ROWS
            await eventually(lambda: any(member.budgets.total for member in centre.fleet.members.values()))
            await alice.budgets.ChangeBudget(wish(), **alice.how)
            await eventually(lambda: sidecar.budget_sink.applied_budget_change() == 1)
        async with Centre(tmp_path / "old", "c2") as restored, Sidecar(restored.target) as again:
            again.budget_sink.applied = sidecar.budget_sink.applied
            await eventually(lambda: again.link.counters.failures.get("CENTRE_BEHIND", 0) > 0)
            assert again.link.authority_lapsed_seconds(again.clock.now()) is not None
