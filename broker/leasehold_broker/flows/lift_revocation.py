"""Lift a block: what a revocation keeps from acquiring leases may do so again. Owns when a block ends by itself.

A lift is an entry of its own in the same log, so that it reaches sidecars in order, is acknowledged and audited. It
revives no lease. The centre alone counts the time of a block, on the boot clock from when it first saw the entry, and
anew in full after a restart: a block lasts at least as long as was asked for.
"""

import asyncio
from dataclasses import dataclass

from leasehold_broker.domain.identity import Identity
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.domain.revocation import Order, Revocation, blocks_in_force
from leasehold_broker.domain.revocation_progress import RevocationProgress
from leasehold_broker.flows.issue_revocation import check_note, check_request_id, shown_as
from leasehold_broker.flows.read_revocations import EPOCH_MAX, ReadRevocations
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.revocation_issuer import RevocationDraft, RevocationIssuer

LOOK_SECONDS = 1.0
PAGE = 500
BY_ITSELF = "the end of the block"


@dataclass(frozen=True, slots=True)
class Lifted:
    """How far the entry that lifts has come; `already`: it was there before."""

    progress: RevocationProgress
    already: bool


class LiftRevocation:
    """A responder lifts a block."""

    def __init__(self, issuer: RevocationIssuer, clock: Clock) -> None:
        """Issue through this issuer."""
        self._issuer = issuer
        self._read = ReadRevocations(issuer)
        self._clock = clock

    async def run(self, identity: Identity, request_id: str, name: str, note: str) -> Lifted:
        """Lift it. What is lifted already is left as it is, and nothing is issued.

        Raises:
            Refusal: REVOCATION_NOT_FOUND, FIELD_INVALID (it blocks nothing), REQUEST_ID_REUSED, STORE_UNAVAILABLE.
        """
        check_note(note)
        check_request_id(request_id)
        blocking = (await self._read.get(name)).revocation
        if not blocking.order.block_new:
            raise field_invalid("name", f"{blocking.name} blocks no new leases, so there is nothing to lift")
        earlier = await self._issuer.lifted_by(blocking.epoch)
        if earlier is not None:
            return Lifted(await self._read.get(earlier.name), already=True)
        now = self._clock.now().wall_ms
        by = shown_as(identity.subject)
        order = Order(lifts=blocking.epoch)
        draft = RevocationDraft(blocking.selector, note, by, request_id, now, identity.subject, order)
        entry = await self._issuer.issue(draft)
        progress = await self._issuer.progress(entry.epoch)
        if progress is None:
            raise Refusal(Reason.STORE_UNAVAILABLE, f"{entry.name} was issued but cannot be read; ask for it again")
        return Lifted(progress, already=False)


class EndBlocks:
    """Lifts blocks whose time is over."""

    def __init__(self, issuer: RevocationIssuer, clock: Clock) -> None:
        """Watch and issue through this issuer."""
        self._issuer = issuer
        self._clock = clock
        self._known = 0
        self._blocks: dict[int, Revocation] = {}
        self._ends_ns: dict[int, int] = {}

    async def run(self) -> None:
        """Look again and again, until something fails: whoever keeps this running tells it, and begins it anew."""
        while True:
            await self.step()
            await asyncio.sleep(LOOK_SECONDS)

    async def step(self) -> None:
        """Take note of new blocks; lift those whose time is over. One that cannot be lifted keeps no other.

        Raises:
            Exception: the first fault, after every block has had its turn.
        """
        await self._look()
        now = self._clock.now()
        faults: list[Exception] = []
        for epoch, ends_ns in tuple(self._ends_ns.items()):
            if now.boot_ns >= ends_ns:
                entry = self._blocks[epoch]
                order = Order(lifts=epoch)
                draft = RevocationDraft(entry.selector, "", BY_ITSELF, f"end of {entry.name}", now.wall_ms, order=order)
                try:
                    await self._issuer.issue(draft)
                except Exception as fault:  # noqa: BLE001 - raised below
                    faults.append(fault)
        if faults:
            raise faults[0]

    async def _look(self) -> None:
        fresh: list[Revocation] = []
        before = EPOCH_MAX
        while before > self._known + 1:
            page = [entry for entry in await self._issuer.page(before, PAGE) if entry.epoch > self._known]
            if not page:
                break
            fresh.extend(page)
            before = page[-1].epoch
        if not fresh:
            return
        self._known = fresh[0].epoch
        self._blocks = blocks_in_force([*self._blocks.values(), *fresh])
        now = self._clock.now()
        for epoch in [epoch for epoch in self._ends_ns if epoch not in self._blocks]:
            del self._ends_ns[epoch]
        for epoch, entry in self._blocks.items():
            if entry.order.block_seconds and epoch not in self._ends_ns:
                self._ends_ns[epoch] = now.after(entry.order.block_seconds)
