"""The collector's way to issue revocations and to see them arrive: port revocation_issuer over log and fleet."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress

from leasehold_broker.domain.revocation import Revocation, Selector
from leasehold_broker.domain.revocation_progress import Behind, Holder, RevocationProgress
from leasehold_broker.domain.selector_matching import SelectorMatching
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.follow_progress import FollowProgress
from leasehold_broker.flows.issue_revocation import issued_event
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.revocation_issuer import HOLDERS_SHOWN_MAX, MatchingLeases, RevocationDraft
from leasehold_broker.ports.revocation_log import RevocationLog

PAGE = 500
MATCHING_NAMES_MAX = 10_000
LEASES_A_TURN = 2_000
"""Looked at before others have their turn: some milliseconds."""
HOLDERS_LEASES_MAX = 10_000
"""Looked at before a revocation is pushed: it must not wait for a list."""
PROGRESS_ROWS_PER_SECOND = 10_000
"""Of a thousand sidecars a watcher is told ten times a second at most."""


class FleetRevocations:
    """Revocations of a fleet."""

    def __init__(self, fleet: Fleet, log: RevocationLog, clock: Clock) -> None:
        """Issue into this log, push to this fleet."""
        self._fleet = fleet
        self._log = log
        self._clock = clock

    async def matching(self, *selectors: Selector) -> MatchingLeases:
        """As the port says, from what the sidecars had reported when it was called; pushes go out meanwhile."""
        matching = SelectorMatching(selectors)
        names: list[str] = []
        holders: Counter[Holder] = Counter()
        each = [0] * len(selectors)
        complete, looked_at = True, LEASES_A_TURN
        for name, live in [(name, member.live) for name, member in self._fleet.members.items()]:
            if looked_at >= LEASES_A_TURN:
                looked_at = 0
                await asyncio.sleep(0)
            looked_at += 1 + len(live.leases)
            for lease, places in matching.found(live.leases, name):
                names.append(lease.name)
                holders[Holder(name, lease.issuer, lease.subject)] += 1
                for place in places:
                    each[place] += 1
            complete = complete and live.complete
        complete = complete and len(names) <= MATCHING_NAMES_MAX
        most = tuple(holders.most_common(HOLDERS_SHOWN_MAX))
        return MatchingLeases(tuple(sorted(names)[:MATCHING_NAMES_MAX]), complete, most, tuple(each))

    async def issue(self, draft: RevocationDraft) -> Revocation:
        """As the port says; sidecars are pushed to by then or soon, those with a matching lease first."""
        return (await self.issue_all([draft]))[0]

    async def issue_all(self, drafts: Sequence[RevocationDraft]) -> Sequence[Revocation]:
        """As the port says; all go out with the same push."""
        issuing = asyncio.ensure_future(self._log.issue_all(drafts, issued_event))
        await asyncio.sleep(0)  # the disk works while we look
        holders = self._holders([draft.selector for draft in drafts])
        entries = await issuing
        self._fleet.issued(holders)
        return entries

    def _holders(self, selectors: Sequence[Selector]) -> frozenset[str]:
        """Sidecars that have reported a lease that matches; of a fleet with very many leases, as far as one looks."""
        matching, looked_at, found = SelectorMatching(selectors), 0, list[str]()
        for name, member in self._fleet.members.items():
            looked_at += len(member.live.leases)
            if looked_at > HOLDERS_LEASES_MAX:
                break
            if matching.found(member.live.leases, name):
                found.append(name)
        return frozenset(found)

    async def progress(self, epoch: int, first_epoch: int | None = None) -> RevocationProgress | None:
        """As the port says."""
        entry = await self._log.find(epoch)
        if entry is None:
            return None
        follow = FollowProgress(self._fleet, self._log, self._clock, entry, first_epoch)
        return await follow.look(self._fleet.members)

    async def lifted_by(self, epochs: Collection[int]) -> Mapping[int, Revocation]:
        """As the port says; reads what was issued since the first of them."""
        found: dict[int, Revocation] = {}
        read_to = min(epochs)
        while len(found) < len(epochs) and (page := await self._log.after(read_to, PAGE)):
            for entry in page:
                if entry.order.lifts in epochs:
                    found.setdefault(entry.order.lifts, entry)
            read_to = page[-1].epoch
        return found

    def behind(self) -> Behind:
        """As the port says."""
        now, epoch, members = self._clock.now(), self._log.epoch(), self._fleet.members
        return Behind(
            {
                name: member.known.applied_epoch
                for name, member in members.items()
                if member.known.applied_epoch < epoch and not self._fleet.lapsed(member, now)
            },
            len(members),
        )

    async def page(self, before_epoch: int, limit: int) -> Sequence[Revocation]:
        """As the port says."""
        return await self._log.before(before_epoch, limit)

    async def watch(
        self, epoch: int, first_epoch: int | None = None, *, changes_only: bool = False
    ) -> AsyncIterator[RevocationProgress]:
        """As the port says."""
        with self._fleet.watcher() as watcher:
            entry = await self._log.find(epoch)
            if entry is None:
                return
            follow = FollowProgress(self._fleet, self._log, self._clock, entry, first_epoch)
            told = False
            while True:
                progress = await follow.look(watcher.take())
                if progress.sidecars or progress.complete or not told:
                    told = True
                    yield progress if changes_only or not progress.changes_only else follow.whole()
                if progress.complete:
                    return
                await asyncio.sleep(len(self._fleet.members) / PROGRESS_ROWS_PER_SECOND)
                with suppress(TimeoutError):
                    async with asyncio.timeout(follow.seconds_to_next_lapse()):
                        await watcher.wait()
