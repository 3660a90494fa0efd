"""BudgetService, at the collector and at the admin socket of a sidecar that runs alone. Words in, words out."""

from collections.abc import Sequence

from leasehold.v1 import budget_service_pb2 as pb
from leasehold_broker.collector.access import Operators
from leasehold_broker.domain.budget_changes import Direction
from leasehold_broker.domain.collector_rules import Role
from leasehold_broker.flows.change_budget import ChangeBudget
from leasehold_broker.ports.budget_changes import FleetStanding
from leasehold_broker.rpc.caller import CallContext
from leasehold_broker.rpc.server import Handlers
from leasehold_broker.wire.budgets import change_to_proto, direction_from_proto, rows_to_proto
from leasehold_broker.wire.fields import check_known
from leasehold_broker.wire.records import timestamp, wall_ms_of

SERVICE = pb.DESCRIPTOR.services_by_name["BudgetService"]

SLICES_MAX = 8000
"""Slices that are listed in one answer, of all fleet budgets; those with most outstanding first."""


class BudgetDoor:
    """Handlers of BudgetService."""

    def __init__(self, budgets: ChangeBudget, operators: Operators) -> None:
        """Call this flow for these operators."""
        self._budgets = budgets
        self._operators = operators

    def handlers(self) -> Handlers:
        """By method name."""
        return {"ListBudgets": self.list_budgets, "ChangeBudget": self.change_budget}

    async def list_budgets(self, request: pb.ListBudgetsRequest, call: CallContext) -> pb.ListBudgetsResponse:
        """How budgets stand, by sidecar, and the changes in force."""
        self._operators.require(call.identity, Role.TREASURER, Role.RESPONDER, Role.AUDITOR)
        check_known(request)
        return pb.ListBudgetsResponse(
            sidecars=[
                pb.SidecarBudgets(
                    sidecar=one.sidecar,
                    connected=one.connected,
                    applied_number=one.applied_number,
                    budgets=rows_to_proto(one.budgets),
                )
                for one in self._budgets.budgets()
            ],
            changes=[change_to_proto(change) for change in (await self._budgets.changes()).values()],
            fleet_budgets=fleet_to_proto(self._budgets.fleet()),
        )

    async def change_budget(self, request: pb.ChangeBudgetRequest, call: CallContext) -> pb.ChangeBudgetResponse:
        """Raise or lower a cap. Treasurers; a responder may lower."""
        direction = direction_from_proto(request.direction)
        lowering = (Role.RESPONDER,) if direction is Direction.LOWER else ()
        self._operators.require(call.identity, Role.TREASURER, *lowering)
        check_known(request)
        change = await self._budgets.run(
            call.identity,
            request.request_id,
            request.budget,
            request.metric,
            direction,
            request.cap,
            wall_ms_of(request.end_time) if request.HasField("end_time") else 0,
            request.note,
        )
        return pb.ChangeBudgetResponse(change=change_to_proto(change))


def fleet_to_proto(standings: Sequence[FleetStanding]) -> list[pb.FleetBudget]:
    """How fleet budgets stand."""
    share = SLICES_MAX // max(1, len(standings))
    return [_standing_to_proto(one, share) for one in standings]


def _standing_to_proto(one: FleetStanding, listed: int) -> pb.FleetBudget:
    slices = sorted(one.escrow.slices.values(), key=lambda each: (-each.outstanding, each.sidecar, each.fence))
    message = pb.FleetBudget(
        budget=one.budget.name,
        metric=one.metric.value,
        cap=one.escrow.cap,
        free=one.escrow.free,
        outstanding=sum(each.outstanding for each in slices),
        spent=sum(each.spent for each in slices),
        written_off=sum(each.written_off for each in slices),
        changed=one.changed,
        slices_total=len(slices),
        slices=[
            pb.FleetSlice(
                sidecar=each.sidecar,
                fence=each.fence,
                granted=each.granted,
                returned=each.returned,
                spent=each.spent,
                held=each.held,
                written_off=each.written_off,
                state=each.state.value,
            )
            for each in slices[:listed]
        ],
    )
    if one.reset_wall_ms:
        message.reset_time.CopyFrom(timestamp(one.reset_wall_ms))
    return message
