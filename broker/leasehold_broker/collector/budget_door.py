"""BudgetService, at the collector and at the admin socket of a sidecar that runs alone. Words in, words out."""

from leasehold.v1 import budget_service_pb2 as pb
from leasehold_broker.collector.access import Operators
from leasehold_broker.domain.budget_changes import Direction
from leasehold_broker.domain.collector_rules import Role
from leasehold_broker.flows.change_budget import ChangeBudget
from leasehold_broker.rpc.caller import CallContext
from leasehold_broker.rpc.server import Handlers
from leasehold_broker.wire.budgets import change_to_proto, direction_from_proto, rows_to_proto
from leasehold_broker.wire.fields import check_known
from leasehold_broker.wire.records import wall_ms_of

SERVICE = pb.DESCRIPTOR.services_by_name["BudgetService"]


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
