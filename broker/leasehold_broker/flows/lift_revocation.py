"""Lift a block: what a revocation keeps from acquiring leases may do so again. Owns when a block ends by itself.

A lift is an entry of its own in the same log, so that it reaches sidecars in order, is acknowledged and audited. It
revives no lease. The centre alone counts the time of a block, on the boot clock from when it first saw the entry, and
anew in full after a restart: a block lasts at least as long as was asked for.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from leasehold_broker.domain.identity import Identity
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.domain.revocation import Order, Revocation, blocks_in_force
from leasehold_broker.domain.revocation_progress import RevocationProgress
from leasehold_broker.flows.issue_revocation import (
    SELECTORS_MAX,
    check_note,
    check_request_id,
    ids_of_several,
    shown_as,
)
from leasehold_broker.flows.read_revocations import EPOCH_MAX, ReadRevocations
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.revocation_issuer import RevocationDraft, RevocationIssuer

LOOK_SECONDS = 1.0
PAGE = 500
WRONG_SHOWN_MAX = 5
BY_ITSELF = "the end of the block"


@dataclass(frozen=True, slots=True)
class LiftedBlock:
    """One block, and the entry that lifts it; `already`: it was there before."""

    name: str
    by: Revocation
    already: bool


@dataclass(frozen=True, slots=True)
class Lifted:
    """What was lifted, as asked for, and how far the last entry that lifts has come."""

    progress: RevocationProgress
    blocks: Sequence[LiftedBlock]

    @property
    def already(self) -> bool:
        """All of it was lifted before: nothing was issued."""
        return all(block.already for block in self.blocks)


class LiftRevocation:
    """A responder lifts blocks."""

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
        return await self._lift(identity, request_id, [await self._blocking(name)], note)

    async def run_all(self, identity: Identity, request_id: str, names: Sequence[str], note: str) -> Lifted:
        """Lift them, all or none: an entry for each that is not lifted already, in their order, in one transaction.

        Raises:
            Refusal: FIELD_INVALID (also: says of the first few why they cannot be lifted), REQUEST_ID_REUSED,
                STORE_UNAVAILABLE.
        """
        check_note(note)
        check_request_id(request_id)
        if not 0 < len(names) <= SELECTORS_MAX:
            raise field_invalid("names", f"must be 1 to {SELECTORS_MAX}, were {len(names)}; ask several times")
        blocking: list[Revocation] = []
        wrong: list[str] = []
        for place, name in enumerate(names):
            try:
                blocking.append(await self._blocking(name))
            except Refusal as refusal:
                if refusal.reason not in {Reason.REVOCATION_NOT_FOUND, Reason.FIELD_INVALID}:
                    raise
                wrong.append(f"[{place}]: {refusal.message}")
        if wrong:
            more = f"; and {len(wrong) - WRONG_SHOWN_MAX} more" if len(wrong) > WRONG_SHOWN_MAX else ""
            told = "; ".join(wrong[:WRONG_SHOWN_MAX])
            raise field_invalid("names", f"cannot all be lifted, so nothing was: {told}{more}; leave these out")
        return await self._lift(identity, request_id, blocking, note)

    async def _blocking(self, name: str) -> Revocation:
        entry = await self._read.entry(name)
        if not entry.order.block_new:
            raise field_invalid("name", f"{entry.name} blocks no new leases, so there is nothing to lift")
        return entry

    async def _lift(self, identity: Identity, request_id: str, blocking: Sequence[Revocation], note: str) -> Lifted:
        earlier = await self._issuer.lifted_by({entry.epoch for entry in blocking})
        now, subject = self._clock.now().wall_ms, identity.subject
        drafts: dict[int, RevocationDraft] = {}
        for own_id, entry in zip(ids_of_several(request_id, len(blocking)), blocking, strict=True):
            if entry.epoch not in earlier and entry.epoch not in drafts:
                order = Order(lifts=entry.epoch)
                draft = RevocationDraft(entry.selector, note, shown_as(subject), own_id, now, subject, order)
                drafts[entry.epoch] = draft
        issued = await self._issuer.issue_all(list(drafts.values())) if drafts else ()
        lifts = {**earlier, **{entry.order.lifts: entry for entry in issued}}
        last = max(lifts.values(), key=lambda entry: entry.epoch)
        progress = await self._issuer.progress(last.epoch)
        if progress is None:
            raise Refusal(Reason.STORE_UNAVAILABLE, f"{last.name} was issued but cannot be read; ask for it again")
        told = [LiftedBlock(entry.name, lifts[entry.epoch], entry.epoch in earlier) for entry in blocking]
        return Lifted(progress, told)


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
