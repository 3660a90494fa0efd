"""Which sidecars may speak for the centre: ban, readmit, evict. Owns the bans in force.

A ban works in the order in which it can be relied on: it is durable first; then nothing of that sidecar is taken; then
its leases are revoked, which an honest one hears before its streams end; then its slices of fleet budgets count as
spent. A dishonest one keeps what it has read, and no more.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import NAMESPACE_URL, uuid5

from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Identity
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.domain.revocation import BySidecar, Cause, Order
from leasehold_broker.flows.fleet import Fleet, Member
from leasehold_broker.flows.fleet_escrow import FleetEscrow
from leasehold_broker.flows.issue_revocation import NAME_LENGTH_MAX, check_note, shown_as
from leasehold_broker.flows.sync_sidecar import SyncSidecar
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.revocation_issuer import RevocationDraft, RevocationIssuer
from leasehold_broker.ports.sidecar_register import SidecarBan, SidecarRegister

FOLLOW_SECONDS = 1.0
"""Another replica hears of a ban within this; of the revocation that comes with it, at once."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a sidecar stands. `member` is None for one that never connected, `ban` for one that is not banned."""

    name: str
    member: Member | None
    lapsed: bool
    ban: SidecarBan | None


class Enrolment:
    """The sidecars of one collector."""

    def __init__(
        self,
        fleet: Fleet,
        register: SidecarRegister,
        issuer: RevocationIssuer,
        sync: SyncSidecar,
        escrow: FleetEscrow,
        clock: Clock,
    ) -> None:
        """Nobody is banned before `restore`."""
        self._fleet = fleet
        self._register = register
        self._issuer = issuer
        self._sync = sync
        self._escrow = escrow
        self._clock = clock
        self._bans: dict[str, SidecarBan] = {}

    async def restore(self) -> None:
        """Take over the bans of earlier lives; before the door opens."""
        earlier = self._bans.keys()
        self._bans = {ban.sidecar: ban for ban in await self._register.bans()}
        for sidecar in self._bans.keys() - earlier:
            self._escrow.expelled(sidecar)  # the life that banned it may have died before it came to that

    async def follow(self) -> None:
        """Take over what other replicas ban and readmit, until cancelled."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            earlier = set(self._bans)
            await self.restore()
            for sidecar in self._bans.keys() - earlier:
                self._sync.expel(sidecar, banned(sidecar))

    def check(self, sidecar: str) -> None:
        """Go on when this sidecar is not banned.

        Raises:
            Refusal: SIDECAR_BANNED.
        """
        if sidecar in self._bans:
            raise banned(sidecar)

    def standings(self) -> Sequence[Standing]:
        """Every known sidecar and every banned one, by name."""
        return [self._standing(name) for name in sorted({*self._fleet.members, *self._bans})]

    async def ban(self, identity: Identity, sidecar: str, note: str) -> Standing:
        """End everything of this sidecar, and let it speak no more.

        Raises:
            Refusal: FIELD_INVALID, STORE_UNAVAILABLE, OVERLOADED.
        """
        _check(sidecar, note)
        now, by = self._clock.now(), shown_as(identity.subject)
        ban = SidecarBan(sidecar, note, by, now.wall_ms)
        if await self._register.ban(ban, self._event(EventType.SIDECAR_BANNED, identity, sidecar, note)):
            self._bans[sidecar] = ban
        else:
            await self.restore()  # banned before, it may be by another replica a moment ago
        # Also when it was banned before: an earlier attempt may have died in between. The same ban is the same request.
        known = self._bans.get(sidecar, ban)
        request_id = str(uuid5(NAMESPACE_URL, f"ban/{sidecar}/{known.create_wall_ms}"))
        words = f"sidecar banned: {known.note}" if known.note else "sidecar banned"
        draft = RevocationDraft(
            BySidecar(sidecar),
            words,
            known.banned_by,
            request_id,
            now.wall_ms,
            identity.subject,
            Order(Cause.AGENT_COMPROMISED),
        )
        await self._issuer.issue(draft)
        self._sync.expel(sidecar, banned(sidecar))
        self._escrow.expelled(sidecar)
        return self._standing(sidecar)

    async def readmit(self, identity: Identity, sidecar: str, note: str) -> Standing:
        """Let it connect again.

        Raises:
            Refusal: FIELD_INVALID, STORE_UNAVAILABLE, OVERLOADED.
        """
        _check(sidecar, note)
        await self._register.readmit(sidecar, self._event(EventType.SIDECAR_READMITTED, identity, sidecar, note))
        self._bans.pop(sidecar, None)
        return self._standing(sidecar)

    async def evict(self, identity: Identity, sidecar: str, note: str) -> None:
        """Forget it: nobody waits for it any more. If it comes back, it is a new one.

        Raises:
            Refusal: FIELD_INVALID (it may still hold authority), STORE_UNAVAILABLE, OVERLOADED.
        """
        _check(sidecar, note)
        member = self._fleet.members.get(sidecar)
        if member is None:
            return
        self._check_gone(member)
        await self._register.forget(sidecar, self._event(EventType.SIDECAR_EVICTED, identity, sidecar, note))
        self._escrow.expelled(sidecar)
        if not member.connected:
            self._fleet.forget(sidecar)

    def _check_gone(self, member: Member) -> None:
        left = self._fleet.seconds_to_lapse(member, self._clock.now())
        if left > 0:
            raise field_invalid(
                "sidecar",
                f"{member.known.name!r} may hold authority for another {left:.0f} s; stop or ban it, then evict it",
            )

    def _standing(self, name: str) -> Standing:
        member = self._fleet.members.get(name)
        lapsed = member is None or self._fleet.lapsed(member, self._clock.now())
        return Standing(name, member, lapsed, self._bans.get(name))

    def _event(self, type_: EventType, identity: Identity, sidecar: str, note: str) -> Event:
        details = {"sidecar": sidecar, "note": note}
        return Event(type_, self._clock.now().wall_ms, Outcome.ALLOWED, subject=identity.subject, details=details)


def banned(sidecar: str) -> Refusal:
    """What a banned sidecar is told."""
    return Refusal(
        Reason.SIDECAR_BANNED,
        f"sidecar {sidecar!r} is banned; ask the responders why ('leasehold sidecars'), and to readmit it",
    )


def _check(sidecar: str, note: str) -> None:
    if not 0 < len(sidecar) <= NAME_LENGTH_MAX or not sidecar.isprintable():
        raise field_invalid("sidecar", "must be the name of a sidecar")
    check_note(note)
