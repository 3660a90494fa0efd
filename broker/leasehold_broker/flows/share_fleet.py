"""Keep one fleet over several replicas. Owns what a replica says of its sidecars, and what it believes of others'.

Liveness is told by no clock but this replica's own: a sidecar that is connected elsewhere counts as heard whenever that
replica's beat was seen to go on; one that is not, from when that was read, less how long it had been silent there. Both
are never earlier than it was. While the board cannot be read, every sidecar elsewhere counts as heard just now: nobody
is declared lapsed for our own blindness.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.time import NANOS, Instant
from leasehold_broker.flows.escrow_holders import EscrowHolders
from leasehold_broker.flows.fleet import Fleet, Member
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.fleet_board import FleetBoard, SidecarNote

SHARE_SECONDS = 0.5
STEP_SECONDS_MAX = 5.0
CHUNK_NOTES = 500


@dataclass(slots=True)
class _Local:
    """A session of this replica: its number here and over all replicas, and what was said of it last."""

    member_session: int
    session: int
    said: SidecarNote


@dataclass(slots=True)
class _Elsewhere:
    """What is believed of a sidecar that has no session here, and the number of its last session here."""

    member_session: int
    note: SidecarNote


class ShareFleet:
    """Says and believes, step by step."""

    def __init__(self, fleet: Fleet, holders: EscrowHolders, board: FleetBoard, clock: Clock) -> None:
        """Share this fleet, and what its sidecars ask of fleet budgets, on this board."""
        self._fleet = fleet
        self._holders = holders
        self._board = board
        self._clock = clock
        self._local: dict[str, _Local] = {}
        self._elsewhere: dict[str, _Elsewhere] = {}
        self._beats: dict[str, int] = {}

    async def run(self) -> None:
        """Step after step; a board that is away is tried again, for ever."""
        patience = min(STEP_SECONDS_MAX, self._fleet.authority_seconds / 4)
        while True:
            try:
                async with asyncio.timeout(patience):
                    await self.step()
            except (Refusal, TimeoutError):
                self._blind()
            await asyncio.sleep(min(SHARE_SECONDS, patience))

    async def step(self) -> None:
        """Say what is new here, then believe what is new elsewhere.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        now = self._clock.now()
        self._drop_forgotten()
        await self._claim(now)
        await self._post(now)
        notes, beats = await self._board.read()
        self._believe(notes, beats, self._clock.now())

    def _drop_forgotten(self) -> None:
        """Who was evicted meanwhile is neither said nor believed any more."""
        for noted in (self._local, self._elsewhere):
            for name in noted.keys() - self._fleet.members.keys():
                del noted[name]

    async def _claim(self, now: Instant) -> None:
        fresh = {
            name: (member.session, self._note(member, 0, now))
            for name, member in self._fleet.members.items()
            if self._unclaimed(name, member)
        }
        names = list(fresh)
        for first in range(0, len(names), CHUNK_NOTES):
            some = names[first : first + CHUNK_NOTES]
            sessions = await self._board.claim([fresh[name][1] for name in some])
            for name, session in sessions.items():
                self._local[name] = _Local(fresh[name][0], session, replace(fresh[name][1], session=session))
                self._elsewhere.pop(name, None)

    async def _post(self, now: Instant) -> None:
        changed: list[SidecarNote] = []
        for name, local in self._local.items():
            member = self._fleet.members[name]
            if member.session != local.member_session:
                continue  # to be claimed, in the next step
            note = self._note(member, local.session, now)
            if _worth(note) != _worth(local.said):
                changed.append(note)
        for first in range(0, max(1, len(changed)), CHUNK_NOTES):
            some = changed[first : first + CHUNK_NOTES]
            await self._board.post(some)
            for note in some:
                self._local[note.known.name].said = note
        for name in [name for name, local in self._local.items() if not local.said.connected]:
            gone = self._local.pop(name)
            self._elsewhere[name] = _Elsewhere(gone.member_session, gone.said)

    def _unclaimed(self, name: str, member: Member) -> bool:
        """True when it has a session here that the board does not know yet."""
        known = self._local.get(name) or self._elsewhere.get(name)
        return member.connected and (known is None or known.member_session != member.session)

    def _note(self, member: Member, session: int, now: Instant) -> SidecarNote:
        silent = max(0, now.boot_ns - member.heard.boot_ns) * 1000 // NANOS
        return SidecarNote(
            member.known,
            self._board.replica,
            session,
            member.connected,
            0 if member.connected else silent,
            member.live,
            member.budgets,
            member.applied_budget_change,
            None if member.key_uses is None else tuple(member.key_uses.values()),
            *self._holders.said_here(member.known.name),
        )

    def _believe(self, notes: Sequence[SidecarNote], beats: Mapping[str, int], now: Instant) -> None:
        changed = [note for note in notes if note.replica != self._board.replica and self._take_over(note, now)]
        alive = {replica for replica, beat in beats.items() if self._beats.get(replica) != beat}
        self._beats = dict(beats)
        for name, other in self._elsewhere.items():
            member = self._fleet.members[name]
            if other.note.connected and other.note.replica in alive and not self._unclaimed(name, member):
                member.heard = now
                self._holders.heard_elsewhere(name, now)
        self._fleet.changed(*(note.known.name for note in changed))

    def _take_over(self, note: SidecarNote, now: Instant) -> bool:
        """Believe one note; False when what is known here is newer."""
        name = note.known.name
        member = self._fleet.members.get(name)
        local = self._local.get(name)
        if local is not None and member is not None:
            if note.session <= local.session or member.session != local.member_session:
                return False
            # It has connected elsewhere since: the session here is an old connection, or a copy of it is running.
            member.session += 1
            self._fleet.superseded += 1
            del self._local[name]
            self._fleet.issued()
        elif member is not None and self._unclaimed(name, member):
            return False  # it has just connected here, and is claimed in the next step
        known = note.known
        if member is None:
            member = self._fleet.members[name] = Member(known, now)
        applied = max(known.applied_epoch, member.known.applied_epoch)
        member.known = replace(
            known, applied_epoch=applied, authority_ms=max(known.authority_ms, member.known.authority_ms)
        )
        member.connected = note.connected
        member.heard = now if note.connected else replace(now, boot_ns=now.boot_ns - note.heard_age_ms * NANOS // 1000)
        member.live, member.budgets = note.live, note.budgets
        member.applied_budget_change = note.applied_budget_change
        member.key_uses = None if note.key_uses is None else {use.key: use for use in note.key_uses}
        member.elsewhere = True
        self._holders.said_elsewhere(name, note.life, note.asks, connected=note.connected, now=now)
        self._elsewhere[name] = _Elsewhere(member.session, note)
        return True

    def _blind(self) -> None:
        now = self._clock.now()
        for name, member in self._fleet.members.items():
            if name not in self._local and not self._unclaimed(name, member):
                member.heard = now
                self._holders.heard_elsewhere(name, now)


def _worth(note: SidecarNote) -> SidecarNote:
    """A note without what changes at every moment."""
    return replace(note, heard_age_ms=0, known=replace(note.known, last_heard_wall_ms=0))
