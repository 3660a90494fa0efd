"""The sidecars that the collector knows: who is connected, what each has applied, which leases live where.

Owns liveness. Memory only; what must survive is in the revocation log. Refuses to forget a sidecar that may still hold
authority: after a restart every known one counts as heard just now.
"""

import asyncio
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from leasehold_broker.domain.budget_changes import BudgetRows
from leasehold_broker.domain.key_use import KeyUse
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation_progress import LiveLeases
from leasehold_broker.domain.sync import SyncMessage, silence_seconds
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.fan_out import FanOut
from leasehold_broker.ports.revocation_log import KnownSidecar

WATCHERS_MAX = 256


NO_LEASES = LiveLeases((), 0)
NO_BUDGETS = BudgetRows((), 0)


@dataclass(slots=True)
class Member:
    """One sidecar. `session` counts its sessions: an older number is superseded; `connected` while one is open."""

    known: KnownSidecar
    heard: Instant
    connected: bool = False
    session: int = 0
    live: LiveLeases = NO_LEASES
    budgets: BudgetRows = NO_BUDGETS
    applied_budget_change: int = 0
    key_uses: Mapping[str, KeyUse] | None = None
    """By name of the key; None until this session has told."""
    elsewhere: bool = False
    """Its session is with another replica: `heard` says when that one was seen to live, not when it spoke."""

    def take_reports(self, message: SyncMessage) -> None:
        """Replace what the message reports anew."""
        if message.budgets is not None:
            self.budgets = message.budgets
        if message.live is not None:
            self.live = message.live
        if message.key_uses is not None:
            self.key_uses = {use.key: use for use in message.key_uses}


class Watcher:
    """One who follows the fleet: whose members have changed since he looked last."""

    def __init__(self, names: Iterable[str]) -> None:
        """All of these at first."""
        self._changed = set(names)
        self._wake = asyncio.Event()

    def tell(self, names: Iterable[str]) -> None:
        """These have changed."""
        self._changed.update(names)
        self._wake.set()

    def take(self) -> set[str]:
        """Who has changed since the last call."""
        changed, self._changed = self._changed, set()
        self._wake.clear()
        return changed

    async def wait(self) -> None:
        """Until there is somebody to take."""
        await self._wake.wait()


class Fleet:
    """Members by name, and whoever waits for a change."""

    def __init__(self, authority_seconds: float) -> None:
        """Start empty; sidecars hold authority for this long."""
        self.authority_seconds = authority_seconds
        self.members: dict[str, Member] = {}
        self.superseded = 0
        """Sessions that a newer one of the same sidecar has ended, here or at another replica."""
        self._watchers: set[Watcher] = set()
        self._sessions = FanOut()

    def restore(self, known: Sequence[KnownSidecar], now: Instant) -> None:
        """Take over what the log knows of earlier lives of this collector."""
        for sidecar in known:
            self.members[sidecar.name] = Member(sidecar, now)

    def lapsed(self, member: Member, now: Instant) -> bool:
        """True when the sidecar has been silent for so long that it refuses by itself."""
        return self.seconds_to_lapse(member, now) <= 0

    def seconds_to_lapse(self, member: Member, now: Instant) -> float:
        """How long until it refuses by itself, when it stays silent."""
        authority = max(self.authority_seconds, member.known.authority_ms / 1000)
        return now.seconds_until(member.heard.after(silence_seconds(authority)))

    def spoke_after(self, member: Member, moment: Instant) -> bool:
        """True when the sidecar has surely said something since, at whichever replica its session is."""
        if not member.elsewhere:
            return member.heard.boot_ns > moment.boot_ns
        authority = max(self.authority_seconds, member.known.authority_ms / 1000)
        # A replica ends the session of a sidecar that is silent for longer, at the latest at its next heartbeat.
        return member.heard.boot_ns > moment.after(1.5 * silence_seconds(authority))

    def forget(self, name: str) -> None:
        """Wait for this sidecar no longer."""
        if self.members.pop(name, None) is not None:
            self.changed(name)

    def connected_count(self) -> int:
        """Sidecars with an open session."""
        return sum(member.connected for member in self.members.values())

    def changed(self, *names: str) -> None:
        """Wake whoever watches progress: one pending wake-up each, with the names of who has changed; never a queue."""
        if names:
            for watcher in self._watchers:
                watcher.tell(names)

    @property
    def session_count(self) -> int:
        """Sessions that are woken on a new entry."""
        return len(self._sessions)

    def issued(self, first: Container[str] = ()) -> None:
        """Let every session know that there is a new revocation or budget change to push.

        Args:
            first: names of sidecars that are pushed to before the others: a thousand pushes take a while.
        """
        self._sessions.issued(first)

    def session_wakes(self, name: str, wake: asyncio.Event) -> AbstractContextManager[None]:
        """Wake this session of a sidecar on a new entry, while the context lasts."""
        return self._sessions.session(name, wake)

    @contextmanager
    def watcher(self) -> Iterator[Watcher]:
        """Who is told of each change, and of all members at first.

        Raises:
            Refusal: OVERLOADED.
        """
        if len(self._watchers) >= WATCHERS_MAX:
            raise Refusal(
                Reason.OVERLOADED,
                f"{WATCHERS_MAX} watchers are open, the most this collector serves; close one first",
                retry_after_seconds=1.0,
            )
        watcher = Watcher(self.members)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
