"""Operators and responders: they revoke, block, lift, ban, readmit, evict and change caps, several at once.

What they ask for crosses no simulated network: the flows behind the doors are called as the doors do.
"""

import asyncio
from typing import Any

from tests.fakes.core import ISSUER, KEY
from tests.simulation.fleet.centre import Centre

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.budget_changes import Direction
from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import (
    PLAIN,
    ByEnvironment,
    ByKey,
    ByLabel,
    ByLease,
    ByProvider,
    BySidecar,
    BySubject,
    Everything,
    Order,
    Selector,
)

ALICE = Identity(Subject("https://idp.example", "alice"), {}, "", 2**50)
BOB = Identity(Subject("https://idp.example", "bob"), {}, "", 2**50)
REVOKE_SECONDS = 8.0
"""Mean time between two revocations."""
TRANSIENT = {Reason.STORE_UNAVAILABLE, Reason.OVERLOADED, Reason.STARTING}


class Operators:
    """Those who govern the fleet."""

    def __init__(self, world: Any) -> None:
        """Nobody has done anything."""
        self._world = world
        self.banned: list[str] = []
        self.ever_banned: set[str] = set()
        self.banned_ns: dict[str, int] = {}
        """Since when, for those of which it is certain."""

    async def run(self) -> None:
        """Revoke now and then, whatever else goes wrong, until the heal."""
        world = self._world
        while not world.healed:
            await asyncio.sleep(world.chance.expovariate(1 / REVOKE_SECONDS))
            if world.centre.up and not world.healed:
                world.centre.process.spawn(self.revoke(world.centre), "responder")

    def _selector(self) -> Selector:
        world = self._world
        chance = world.chance
        leases = [lease.name for one in world.sidecars if one.alive for lease in one.core.books.leases.values()]
        lease = ByLease(chance.choice(leases)) if leases else Everything()
        name = chance.choice(world.names)
        return chance.choice(
            [
                lease,
                lease,
                BySubject("", f"agent-{chance.randint(0, 2)}"),
                BySubject(ISSUER, "agent-*"),
                ByKey(KEY.name),
                ByProvider("openai"),
                ByEnvironment("prod"),
                ByLabel("team", chance.choice(["red", "blue"])),
                BySidecar(name),
                Everything(),
            ]
        )

    async def revoke(self, centre: Centre) -> None:
        """One responder revokes; the same request may come twice."""
        world = self._world
        order = PLAIN
        if world.chance.random() < 0.3:
            order = Order(block_new=True, block_seconds=world.chance.choice([2, 10]))
        request_id, selector = world.request_id(), self._selector()
        who = world.chance.choice([ALICE, BOB])
        times = 2 if world.chance.random() < 0.2 else 1
        names = set()
        for _ in range(times):
            issued = await self._tried(
                centre.revoke.run(who, request_id, selector, "simulated", order=order, validate_only=False)
            )
            if issued is not None:
                names.add(issued.progress.revocation.name)
        assert len(names) <= 1, "one request id made two revocations"

    async def revoke_at_once(self, centre: Centre) -> None:
        """Several responders at the same moment, by different selectors."""
        for _ in range(self._world.chance.randint(2, 4)):
            centre.process.spawn(self.revoke(centre), "responder")

    async def lift(self, centre: Centre) -> None:
        """A responder lifts what blocks."""
        blocking = [entry for entry, _ in self._world.revocations.issued if entry.order.block_new]
        if blocking:
            entry = self._world.chance.choice(blocking)
            await self._tried(centre.lift.run(ALICE, self._world.request_id(), entry.name, "over"))

    async def change_cap(self, centre: Centre) -> None:
        """An operator changes the cap for a while; a lowered one may be for good until it is raised again."""
        world = self._world
        chance, cap = world.chance, world.settings.cap
        raises = chance.random() < 0.5
        world.seen["cap raised" if raises else "cap lowered"] += 1
        changed = cap * chance.choice([2, 3]) if raises else cap * chance.choice([0, 1, 2]) // 4
        world.escrow.rolling.cap_most = max(world.escrow.rolling.cap_most, changed)
        until = centre.clock.now().wall_ms + chance.choice([5_000, 60_000])
        await self._tried(
            centre.budgets.run(
                ALICE,
                world.request_id(),
                world.settings.main_budget.name,
                Metric.COST_MICRO_USD.value,
                Direction.RAISE if raises else Direction.LOWER,
                changed,
                until,
                "simulated",
            )
        )

    async def ban(self, centre: Centre) -> None:
        """A sidecar is thrown out, and let in again after a while."""
        world = self._world
        name = world.chance.choice(world.names)
        self.ever_banned.add(name)
        if await self._tried(centre.enrolment.ban(ALICE, name, "simulated")) is not None:
            self.banned.append(name)
            self.banned_ns[name] = world.now_ns()
            world.seen["banned"] += 1

    async def readmit(self, centre: Centre, name: str) -> None:
        """It may come back."""
        self.banned_ns.pop(name, None)
        if await self._tried(centre.enrolment.readmit(ALICE, name, "simulated")) is not None:
            world = self._world
            world.seen["readmitted"] += 1
            self.banned = [one for one in self.banned if one != name]

    async def evict(self, centre: Centre) -> None:
        """Somebody is forgotten, if he is gone."""
        world = self._world
        try:
            await centre.enrolment.evict(ALICE, world.chance.choice(world.names), "simulated")
        except Refusal as refusal:
            _expected(refusal, Reason.FIELD_INVALID)
            world.seen["evict refused"] += refusal.reason is Reason.FIELD_INVALID
        else:
            world.seen["evicted"] += 1

    @staticmethod
    async def _tried(work: Any) -> Any:
        """What an operator gets; None when he has to try again later."""
        try:
            return await work
        except Refusal as refusal:
            _expected(refusal)
            return None


def _expected(refusal: Refusal, *also: Reason) -> None:
    assert refusal.reason in {*TRANSIENT, *also}, f"{refusal.reason}: {refusal.message}"
