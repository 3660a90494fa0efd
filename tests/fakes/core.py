"""The heart of a sidecar on any state store: the real flows, wired as the process does, in a small known world."""

import uuid
from dataclasses import replace

from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_processes import MemoryProcesses
from tests.fakes.memory_world import MemoryCentre, MemoryKeys, MemoryMinter, MemoryPolicies, MemoryPrices, MemoryProbe

from leasehold_broker.domain.amounts import NO_CAPS, Amounts
from leasehold_broker.domain.call import CallEnd, CallOutcome, CallPlan
from leasehold_broker.domain.identity import Identity, Peer, Subject
from leasehold_broker.domain.keys import KeyRecord, KeyState
from leasehold_broker.domain.lease import Mode
from leasehold_broker.domain.policy import Grant, LeaseRequest, Policy
from leasehold_broker.domain.price import ModelPrice, Rates, Usage
from leasehold_broker.domain.scope import Scope
from leasehold_broker.flows.acquire import AcquireLease
from leasehold_broker.flows.apply_budget_changes import ApplyBudgetChanges
from leasehold_broker.flows.apply_revocations import ApplyRevocations
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.call import Calls
from leasehold_broker.flows.change_budget import ChangeBudget
from leasehold_broker.flows.change_budget_alone import ChangeBudgetAlone
from leasehold_broker.flows.delegate import DelegateLease
from leasehold_broker.flows.dynamic_keys import DynamicKeys
from leasehold_broker.flows.end_with_process import EndWithProcess
from leasehold_broker.flows.handing_out import HandingOut
from leasehold_broker.flows.issuing import World
from leasehold_broker.flows.journal import Journal
from leasehold_broker.flows.key_health import KeyHealth
from leasehold_broker.flows.read import ReadLeases
from leasehold_broker.flows.recover import Recover
from leasehold_broker.flows.refusals import RecordRefusal
from leasehold_broker.flows.release import ReleaseLease
from leasehold_broker.flows.renew import RenewLease
from leasehold_broker.flows.stop import Stop
from leasehold_broker.flows.sweep import Sweep

ISSUER = "https://idp.example"
PEER = Peer(uid=1000)
OTHER_PEER = Peer(uid=2000)
KEY = KeyRecord("anthropic-prod", "anthropic", "prod", KeyState.ENABLED, 1, 0)
OPENAI_KEY = KeyRecord("openai-prod", "openai", "prod", KeyState.ENABLED, 1, 0)
MODEL = "claude-small"
# 1 USD a million input tokens, 5 USD a million output tokens: 1 and 5 micro-USD a token.
PRICE = ModelPrice(
    MODEL, Rates(1_000_000, 5_000_000, 100_000, 1_250_000, 2_000_000, file_search=1_000_000), (), 200_000, 64_000, "v1"
)
GRANT = Grant(
    name="agents",
    issuer=ISSUER,
    subjects=("agent-*",),
    environment="prod",
    keys=(KEY.name, OPENAI_KEY.name),
    scopes=(Scope("anthropic", tools=("web_search*",)), Scope("openai")),
    caps=NO_CAPS,
    ttl_seconds_max=3600,
    life_seconds_max=4 * 3600,
    modes=frozenset({Mode.BROKERED}),
    leases_max=1000,
    delegation_depth_max=4,
)
POLICY = Policy("policy-1", (GRANT,))
SIDECAR = "sidecar-a"
FINISHED = CallOutcome(CallEnd.FINISHED, sent=True, status=200, usage=Usage(10, output_tokens=10), usage_final=True)


def identity(subject: str = "agent-1", environment: str = "prod", **labels: str) -> Identity:
    """A verified caller."""
    return Identity(Subject(ISSUER, subject, {"environment": environment, **labels}), {}, "", 2**50)


def caps(**named: int) -> Amounts:
    """Caps where named, none elsewhere."""
    return NO_CAPS._replace(**named)


def request(limits: Amounts = NO_CAPS, ttl_seconds: int | None = None, **more: object) -> LeaseRequest:
    """A request for the anthropic scope."""
    members: dict = {"scopes": (Scope("anthropic"),), "mode": Mode.BROKERED} | more
    return LeaseRequest(caps=limits, ttl_seconds=ttl_seconds, **members)


def plan(input_tokens: int = 100, output_tokens: int | None = 100, **more: object) -> CallPlan:
    """A metered call; by default its worst case is 100 * 2 + 100 * 5 = 700 micro-USD."""
    members: dict = {
        "provider": "anthropic",
        "operation": "messages",
        "model": MODEL,
        "metered": True,
        "stream": False,
        "output_limited": True,
    } | more
    return CallPlan(input_tokens_bound=input_tokens, output_tokens_stated=output_tokens, **members)


def used(input_tokens: int, output_tokens: int, **more: object) -> CallOutcome:
    """A finished call with the provider's final word."""
    usage = Usage(input_tokens, output_tokens=output_tokens, **more)
    return CallOutcome(CallEnd.FINISHED, sent=True, status=200, usage=usage, usage_final=True)


def fresh_id() -> str:
    """A request id."""
    return str(uuid.uuid4())


class Core:
    """Flows over one store."""

    def __init__(
        self,
        store,
        clock: ManualClock,
        policy: Policy = POLICY,
        entropy: CountingEntropy | None = None,
        dynamic=(),
        sidecar: str = SIDECAR,
    ):
        """Start."""
        self.store = store
        self.clock = clock
        self.books = Books(sidecar)
        self.journal = Journal(store)
        self.keys = MemoryKeys(KEY, OPENAI_KEY)
        self.policies = MemoryPolicies(policy)
        self.prices = MemoryPrices({("anthropic", MODEL): PRICE})
        self.centre = MemoryCentre()
        self.world = World(clock, entropy or CountingEntropy(), self.policies, self.centre, store.pepper)
        self.processes = MemoryProcesses()
        self.end_with_process = EndWithProcess(self.books, self.journal, clock, self.processes)
        self.minter = MemoryMinter()
        self.probe = MemoryProbe()
        self.health = KeyHealth(self.keys, self.books, self.journal, clock, self.probe)
        self.dynamic = DynamicKeys(dynamic, clock, self.world.entropy)
        self.handing_out = HandingOut(self.books, self.health, self.minter, self.dynamic)
        self.acquire = AcquireLease(
            self.books, self.journal, self.world, self.health, self.end_with_process, self.handing_out
        )
        self.delegate = DelegateLease(self.books, self.journal, self.world)
        self.renew = RenewLease(self.books, self.journal, self.world)
        self.release = ReleaseLease(self.books, self.journal, clock)
        self.read = ReadLeases(self.books, self.policies, clock)
        self.calls = Calls(self.books, self.journal, self.world, self.health, self.prices)
        self.revocations = ApplyRevocations(self.books, self.journal, clock)
        self.apply_budgets = ApplyBudgetChanges(self.books, self.journal, clock)
        alone = ChangeBudgetAlone("alone", self.books, self.apply_budgets, self.policies, clock)
        self.budgets = ChangeBudget(alone, clock)
        self.refusals = RecordRefusal(self.books, store, clock)
        self.sweep = Sweep(self.books, self.journal)
        self.stop = Stop(self.books, self.journal, clock)

    async def recover(self) -> "Core":
        """Start from what is durable."""
        stored = await Recover(self.books, self.store).run(self.clock.now(), "test")
        self.dynamic.start(self.books, self.journal, stored.engine_leases)
        return self

    async def lease(self, limits: Amounts = NO_CAPS, ttl_seconds: int | None = None, **more: object):
        """A fresh root lease of agent-1."""
        issued = await self.acquire.run(
            identity(), PEER, request(limits, ttl_seconds, **more), fresh_id(), validate_only=False
        )
        return issued.lease

    async def child(self, parent, limits: Amounts = NO_CAPS, ttl_seconds: int | None = None, **more: object):
        """A lease delegated from `parent`, by default with the parent's scopes."""
        members: dict = {"scopes": ()} | more
        issued = await self.delegate.run(
            identity(), PEER, parent.name, request(limits, ttl_seconds, **members), fresh_id(), None
        )
        return issued.lease

    async def admit(self, lease, wanted: CallPlan | None = None, cut=lambda *_: None):
        """Admit one call."""
        return await self.calls.admit(lease, wanted or plan(), fresh_id(), cut)

    def now_lease(self, lease):
        """The lease as it is now."""
        return self.books.leases[lease.name]

    def account(self, lease):
        """The lease's own budget."""
        return self.books.ledger.account(f"lease:{lease.name}")

    def set_grant(self, **members: object) -> None:
        """Reload the policy with the grant changed."""
        self.policies.policy = replace(self.policies.policy, grants=(replace(GRANT, **members),))
