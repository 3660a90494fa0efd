"""Agents and their provider: leases, delegated leases, calls and streams through the real flows, as the egress does it.

Owns what nobody else knows: which byte really went upstream, on which lease, and when a stream really ended.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from tests.fakes.core import FINISHED, PEER, identity, plan, request, used
from tests.simulation.fleet.invariants_revocation import LeaseFacts

from leasehold_broker.domain.call import CallEnd, CallOutcome
from leasehold_broker.domain.identity import Identity
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.flows.call import NOT_SENT, UNKNOWN

STREAM_SECONDS_MAX = 25.0
FORGETS = 0.7
"""How often an agent looks which of its leases are dead; else it may call with a dead one."""
CALLS_MAX = 24
"""Open at one sidecar at a time."""
EXPECTED = {
    Reason.BUDGET_EXHAUSTED,
    Reason.CENTRE_UNREACHABLE,
    Reason.STORE_UNAVAILABLE,
    Reason.AUDIT_SPOOL_FULL,
    Reason.LEASE_REVOKED,
    Reason.LEASE_EXPIRED,
    Reason.LEASE_UNKNOWN,
    Reason.LEASE_RELEASED,
    Reason.SUBJECT_BLOCKED,
    Reason.DRAINING,
    Reason.OVERLOADED,
    Reason.RATE_LIMITED,
    Reason.LEASE_NOT_FOUND,
}


@dataclass
class OpenCall:
    """A call that was admitted, as nobody but the world knows it."""

    id: str
    facts: LeaseFacts
    held: int
    cut: asyncio.Event
    ended: bool = False


@dataclass
class Held:
    """A lease that an agent has."""

    lease: Lease
    facts: LeaseFacts


class Agents:
    """All agents of the fleet."""

    def __init__(self, world: Any) -> None:
        """Nobody calls yet."""
        self._world = world
        self.calling = True
        self.gentle = False
        """Small calls, one at a time: after the heal every one must be admitted."""
        self.served: dict[str, int] = {}
        self.refused: dict[str, dict[str, int]] = {}

    def begin(self, sidecar: Any) -> None:
        """The agents beside this sidecar."""
        for n in range(self._world.settings.agents):
            sidecar.process.spawn(self._agent(sidecar, n), f"agent {n} at {sidecar.name}")

    async def _agent(self, sidecar: Any, number: int) -> None:
        world = self._world
        team = "red" if number % 2 else "blue"
        who = identity(f"agent-{number}", team=team)
        held: list[Held] = []
        rate = world.settings.calls_per_second * sidecar.weight / world.settings.agents
        while True:
            await asyncio.sleep(1.0 if self.gentle else world.chance.expovariate(rate))
            if not self.calling or sidecar.stopping or len(sidecar.calls) >= CALLS_MAX:
                continue
            try:
                mine = await self._lease(sidecar, who, held)
            except Refusal as refusal:
                await self._told(sidecar, refusal, None, "AcquireLease", who)
                continue
            sidecar.process.spawn(self._call(sidecar, mine, held), f"call at {sidecar.name}")

    async def _lease(self, sidecar: Any, who: Identity, held: list[Held]) -> Held:
        """A live lease: one of those it has, or a new one, or one delegated from it."""
        world, core = self._world, sidecar.core
        if world.chance.random() < FORGETS or self.gentle:
            held[:] = [one for one in held if (now := core.books.leases.get(one.lease.name)) and not now.ended]
        draw = world.chance.random()
        if held and draw < 0.9:
            return world.chance.choice(held)
        before, asides = len(core.books.revocations), len(core.books.revocations_set_aside)
        if held and draw < 0.95 and len(held[0].facts.trees) < 3:
            parent = held[0]
            issued = await core.delegate.run(who, PEER, parent.lease.name, request(scopes=()), world.request_id(), None)
            trees = (issued.lease.name, *parent.facts.trees)
        else:
            issued = await core.acquire.run(
                who, PEER, request(ttl_seconds=600), world.request_id(), validate_only=False
            )
            trees = (issued.lease.name,)
            world.audit.lease_given(issued.lease.name)
        lease = issued.lease
        facts = LeaseFacts(
            trees,
            who.subject.issuer,
            who.subject.subject,
            who.subject.environment,
            dict(who.subject.labels),
            tuple(scope.provider for scope in lease.scopes),
            tuple(scope.key for scope in lease.scopes),
            sidecar.name,
            lease.revocation_epoch,
            world.revocations.in_force(sidecar),
        )
        if asides == len(core.books.revocations_set_aside):
            assert before <= facts.epoch <= len(core.books.revocations), "R2: a lease of an epoch that was not in force"
        if not core.books.leases[lease.name].ended:
            world.revocations.lease_given(sidecar, facts)
        world.seen["lease given" if len(trees) == 1 else "lease delegated"] += 1
        held.append(Held(lease, facts))
        return held[-1]

    async def _call(self, sidecar: Any, mine: Held, held: list[Held]) -> None:
        world, core = self._world, sidecar.core
        cut = asyncio.Event()
        lease = core.books.leases.get(mine.lease.name, mine.lease)
        wanted = plan((self._worst(sidecar) - 10) // 2, 2, stream=True)
        try:
            admitted = await core.calls.admit(lease, wanted, world.request_id(), lambda *_: cut.set())
        except Refusal as refusal:
            if refusal.reason in {Reason.LEASE_REVOKED, Reason.LEASE_UNKNOWN, Reason.LEASE_EXPIRED} and mine in held:
                held.remove(mine)
            await self._told(sidecar, refusal, lease, "", None)
            return
        hold = core.books.ledger.hold(admitted.call_id)
        world.audit.sent_upstream(admitted.call_id)
        world.revocations.admitted(sidecar, mine.facts)
        world.escrow.admitted(sidecar, hold)
        call = OpenCall(admitted.call_id, mine.facts, hold.amounts.cost_micro_usd, cut)
        sidecar.calls[call.id] = call
        world.seen["admitted"] += 1
        world.seen["admitted without the centre"] += not world.centre.up
        self.served[sidecar.name] = self.served.get(sidecar.name, 0) + 1
        world.trace("admit", sidecar.name, call.id)
        await self._stream(sidecar, call)

    async def _stream(self, sidecar: Any, call: OpenCall) -> None:
        """The relay: until the provider is done, or the lease is."""
        world = self._world
        seconds = min(STREAM_SECONDS_MAX, world.chance.expovariate(1 / world.settings.stream_seconds))
        seconds = 0.2 if self.gentle else seconds
        try:
            async with asyncio.timeout(seconds):
                await call.cut.wait()
        except TimeoutError:
            outcome = self._outcome(call)
        else:
            outcome = replace(FINISHED, end=CallEnd.CUT_BY_REVOCATION, usage=None, usage_final=False)
            world.seen["stream cut"] += 1
        call.ended = True
        await sidecar.core.calls.settle(call.id, outcome)
        sidecar.calls.pop(call.id, None)
        assert sidecar.core.books.ledger.hold(call.id) is None, f"R6, B3: call {call.id} has ended and still holds"

    def _outcome(self, call: OpenCall) -> CallOutcome:
        draw = self._world.chance.random()
        if draw < 0.05:
            return NOT_SENT
        if draw < 0.1:
            return UNKNOWN
        if draw < 0.8:
            return used(self._world.chance.randint(0, max(0, (call.held - 10) // 2)), 2)
        return replace(FINISHED, usage=None, usage_final=False)

    def _worst(self, sidecar: Any) -> int:
        if self.gentle or self._world.chance.random() < 0.2:
            return 20 + 2 * self._world.chance.randint(0, 10)
        return sidecar.worst

    async def _told(self, sidecar: Any, refusal: Refusal, lease: Any, method: str, who: Any) -> None:
        """A refusal is an event before it is an answer."""
        world, core = self._world, sidecar.core
        _expected(refusal)
        world.seen[f"refused {refusal.reason.value}"] += 1
        if refusal.reason is Reason.BUDGET_EXHAUSTED:
            everyone = "for all sidecars" in refusal.message
            world.seen[f"refused: {'all' if everyone else 'part'} used up"] += 1
            assert everyone or refusal.retry_after_seconds == 1.0, "E8: a part that is used up is looked at in a second"
        told = self.refused.setdefault(sidecar.name, {})
        told[refusal.reason.value] = told.get(refusal.reason.value, 0) + 1
        request_id = world.request_id()
        try:
            if method:
                await core.refusals.rpc_refused(method, refusal, who, PEER, request_id)
            else:
                await core.refusals.call_refused(refusal, PEER, request_id, lease, "anthropic", "messages", None)
        except Refusal as instead:  # the spool is full, or the disk: then that is the answer
            _expected(instead)
            return
        world.audit.denial_answered(sidecar.name, request_id)


def _expected(refusal: Refusal) -> None:
    assert refusal.reason in EXPECTED, f"{refusal.reason}: {refusal.message} {refusal.detail}"
