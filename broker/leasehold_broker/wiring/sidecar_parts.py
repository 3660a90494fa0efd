"""What the tie to a centre needs of its sidecar."""

from collections.abc import Callable
from dataclasses import dataclass

from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.adapters.sqlite_state import SqliteStateStore
from leasehold_broker.config import SidecarConfig
from leasehold_broker.flows.apply_budget_changes import ApplyBudgetChanges
from leasehold_broker.flows.apply_revocations import ApplyRevocations
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.journal import Journal
from leasehold_broker.flows.refusals import RecordRefusal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.policy_source import PolicySource
from leasehold_broker.wiring.sidecar_keys import SidecarKeys
from leasehold_broker.wiring.supervision import Supervisor


@dataclass(frozen=True, slots=True)
class SidecarParts:
    """What the tie needs of its sidecar. `fail` makes the process give up."""

    config: SidecarConfig
    clock: Clock
    entropy: Entropy
    peers: KernelPeers
    books: Books
    journal: Journal
    store: SqliteStateStore
    apply: ApplyRevocations
    apply_budgets: ApplyBudgetChanges
    policies: PolicySource
    recorder: RecordRefusal
    tasks: Supervisor
    keys: SidecarKeys
    fail: Callable[[str], None]
