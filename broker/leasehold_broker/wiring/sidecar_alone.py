"""The centre of a sidecar that runs alone: revocation and the audit log on its admin socket, for local operators.

The log is kept beside the state, for good.
"""

import contextlib
from collections.abc import AsyncIterator, Coroutine
from functools import partial

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.collector import audit_door, budget_door, key_door, revocation_door
from leasehold_broker.collector.access import Operators
from leasehold_broker.collector.audit_door import AuditDoor
from leasehold_broker.collector.budget_door import BudgetDoor
from leasehold_broker.collector.key_door import KeyDoor
from leasehold_broker.collector.revocation_door import RevocationDoor
from leasehold_broker.collector.rotators import Rotators
from leasehold_broker.config.doors import Listen
from leasehold_broker.config.sidecar import Alone
from leasehold_broker.domain.collector_rules import Role
from leasehold_broker.flows.change_budget import ChangeBudget
from leasehold_broker.flows.change_budget_alone import ChangeBudgetAlone
from leasehold_broker.flows.collector_records import CollectorRecords
from leasehold_broker.flows.issue_revocation import IssueRevocation
from leasehold_broker.flows.key_uses import ReportKeyUses
from leasehold_broker.flows.lift_revocation import EndBlocks, LiftRevocation
from leasehold_broker.flows.prove import Prove
from leasehold_broker.flows.read_audit import ReadAudit
from leasehold_broker.flows.read_revocations import ReadRevocations
from leasehold_broker.flows.revoke_alone import RevokeAlone
from leasehold_broker.flows.ship_locally import ShipLocally
from leasehold_broker.flows.store_events import StoreEvents
from leasehold_broker.rpc.access import Access
from leasehold_broker.wiring.checkpoints import CheckpointPlan, checkpoints
from leasehold_broker.wiring.collector_store import OpenStore
from leasehold_broker.wiring.grpc_door import GrpcDoor
from leasehold_broker.wiring.life import new_life
from leasehold_broker.wiring.rotations import Rotating, RotationPlan, rotating
from leasehold_broker.wiring.sidecar_parts import SidecarParts


@contextlib.asynccontextmanager
async def own_centre(parts: SidecarParts, alone: Alone) -> AsyncIterator[Coroutine[None, None, None]]:
    """Serve local operators; gives what ships the outbox into the log, to be kept running."""
    folder, name = parts.config.state_dir, f"{parts.config.name}.centre"
    plan = CheckpointPlan(f"leasehold/{name}", folder / "checkpoint.key", folder / "checkpoint.pub")
    log = CollectorStore(folder / "audit.db", name, new_life(), alone=True)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(log.close)
        prove, _ = await stack.enter_async_context(checkpoints(plan, OpenStore(log), parts.clock, parts.fail))
        issuer = RevokeAlone(parts.config.name, parts.books, parts.journal, parts.apply, parts.clock)
        await stack.enter_async_context(parts.tasks.keeping("end-blocks", EndBlocks(issuer, parts.clock).run))
        users = ReportKeyUses(parts.config.name, parts.books, parts.keys.ring)
        rotated = RotationPlan(parts.config.rotations, parts.keys, parts.config.providers)
        rotations = await stack.enter_async_context(
            rotating(rotated, OpenStore(log), log.rotations, users, parts.clock, parts.entropy, parts.tasks)
        )
        door = _door(parts, alone, log, issuer, prove, rotations)
        await door.start(partial(parts.fail, "the admin socket was taken over by another process"))
        stack.push_async_callback(door.stop)
        yield ShipLocally(parts.config.name, parts.store, log, parts.clock).run()


def _door(
    parts: SidecarParts, alone: Alone, log: CollectorStore, issuer: RevokeAlone, prove: Prove, rotations: Rotating
) -> GrpcDoor:
    records = CollectorRecords(log, parts.clock)
    operators = Operators(None, (), dict.fromkeys(alone.operator_uids, frozenset(Role)))
    rotators = Rotators(operators, None, ())
    door = GrpcDoor(
        Listen(alone.admin_socket, None, "", 0, None),
        parts.peers,
        {Access.OPERATOR: operators.authenticate, Access.ROTATOR: rotators.authenticate},
        records,
        parts.clock,
        parts.entropy,
        lambda _refusal: None,
        records,
    )
    revocation = RevocationDoor(
        IssueRevocation(issuer, StoreEvents(parts.store), parts.clock),
        LiftRevocation(issuer, parts.clock),
        ReadRevocations(issuer),
        operators,
        rotations.request,
        rotations.disable,
    )
    changer = ChangeBudgetAlone(parts.config.name, parts.books, parts.apply_budgets, parts.policies, parts.clock)
    budgets = BudgetDoor(ChangeBudget(changer, parts.clock), operators)
    keys = KeyDoor(rotations.request, rotations.cancel, rotations.read, rotators, operators)
    door.server.serve(key_door.SERVICE, keys.handlers())
    door.server.serve(budget_door.SERVICE, budgets.handlers())
    door.server.serve(revocation_door.SERVICE, revocation.handlers())
    door.server.serve(audit_door.SERVICE, AuditDoor(ReadAudit(log), prove, operators).handlers())
    return door
