"""Who takes part in fleet budgets: sidecars with a session, by their life now, what each asks for, when it was heard.

Owns which of two lives of one sidecar may be granted to (E7), and how long a life is silent. Refuses to know amounts
that were granted: it keeps what sidecars want, and wakes those that have to be told something.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from leasehold_broker.domain.fleet_budget import SharedAsk
from leasehold_broker.domain.time import NANOS, Instant
from leasehold_broker.flows.escrow_windows import Key

LIVES_MAX = 16
"""Lives of a sidecar that are remembered as taken over from."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What one sidecar last said of one budget in one metric.

    Args:
        want, need: as it said.
        held: by its calls in flight.
        since_ns, since_wall_ms: when its need arose.
    """

    want: int
    need: int
    held: int
    since_ns: int
    since_wall_ms: int

    def same(self, other: "Ask | None") -> bool:
        """True when both ask for the same; since when only decides who comes first."""
        return other is not None and (self.want, self.need, self.held) == (other.want, other.need, other.held)


@dataclass(slots=True)
class Holder:
    """One sidecar that takes part, by its life now.

    Args:
        keep: what it may keep where something is asked back.
    """

    life: str
    asks: dict[Key, Ask] = field(default_factory=dict)
    keep: dict[Key, int] = field(default_factory=dict)

    def ask(self, key: Key, want: int, need: int, held: int, before: Ask | None, now: Instant) -> None:
        """It wants so much; a need that it had before is as old as it was."""
        since = (now.boot_ns, now.wall_ms)
        if before is not None and before.need and need:
            since = (before.since_ns, before.since_wall_ms)
        self.asks[key] = Ask(want, need, held, *since)


class EscrowHolders:
    """Every sidecar that takes part. One owner: the event loop's thread."""

    def __init__(self, silence_seconds: float) -> None:
        """A life that is not heard for so long does not act on anything that it was told."""
        self._silence_ns = int(silence_seconds * NANOS)
        self._holders: dict[str, Holder] = {}
        self._elsewhere: dict[str, Holder] = {}
        """Sidecars that take part at another replica."""
        self._wakes: dict[tuple[str, str], asyncio.Event] = {}
        self._lives: dict[str, list[str]] = {}
        """Of each sidecar the lives that were granted to, the newest last."""
        self._heard_ns: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        """How many take part."""
        return len(self._holders)

    def __contains__(self, name: str) -> bool:
        """True when it takes part here."""
        return name in self._holders

    def __getitem__(self, name: str) -> Holder:
        """One that takes part."""
        return self._holders[name]

    def joined(self, name: str, life: str, now: Instant) -> bool:
        """A session of this life was opened; False when it does not take part: another life took over from it.

        Two copies that take turns would have each slice ended by the other: a life that was taken over from gets no
        slice while the one that did so is heard.
        """
        lives = self._lives.setdefault(name, [])
        if life in lives[:-1]:
            heard_ns = self._heard_ns.get((name, lives[-1]), 0)
            if now.boot_ns < heard_ns + self._silence_ns:
                return False
            lives.remove(life)
        if lives[-1:] != [life]:
            self._lives[name] = [*lives[-LIVES_MAX:], life]
        if self.of(name, life) is None:
            self._holders[name] = Holder(life)
        self._elsewhere.pop(name, None)
        self._heard_ns[name, life] = now.boot_ns
        return True

    def left(self, name: str, life: str) -> None:
        """The session of this life is gone: it asks for nothing until it is back; what it has stays its own."""
        if self.of(name, life) is not None:
            del self._holders[name]

    def expelled(self, name: str) -> None:
        """The sidecar may speak no more, whatever its life: it takes no part until a session of it is opened again."""
        self._holders.pop(name, None)
        self._elsewhere.pop(name, None)

    def life_of(self, name: str) -> str:
        """The life of a sidecar that takes part here; else empty."""
        holder = self._holders.get(name)
        return "" if holder is None else holder.life

    def of(self, name: str, life: str) -> Holder | None:
        """This life, when it takes part."""
        holder = self._holders.get(name)
        return holder if holder is not None and holder.life == life else None

    def was_taken_over(self, name: str, life: str) -> bool:
        """True for a life that another one took over from."""
        return life in self._lives.get(name, [])[:-1]

    def heard(self, name: str, life: str, now: Instant) -> None:
        """It has just said something."""
        self._heard_ns[name, life] = now.boot_ns

    def silent(self, name: str, life: str, seconds_more: float, now: Instant) -> bool:
        """True when a life has been silent for longer than it acts without being heard, and for so long after."""
        heard_ns = self._heard_ns.setdefault((name, life), now.boot_ns)
        return now.boot_ns >= heard_ns + self._silence_ns + int(seconds_more * NANOS)

    def granted(self, name: str, life: str, now: Instant) -> None:
        """This life holds a slice, as the books say; one that was not known here counts as heard just now.

        It was before the life that takes part here, if any: which of two is the newer one, sessions tell.
        """
        self._heard_ns.setdefault((name, life), now.boot_ns)
        lives = self._lives.setdefault(name, [])
        if life not in lives:
            lives.insert(len(lives) - 1 if lives and name in self._holders else len(lives), life)

    def know_only(self, lives: Iterable[tuple[str, str]]) -> None:
        """Only these lives hold anything; forget when others were heard."""
        held = frozenset(lives)
        self._heard_ns = {life: at for life, at in self._heard_ns.items() if life in held}

    @contextmanager
    def waking(self, name: str, life: str, wake: asyncio.Event) -> Iterator[None]:
        """Set this event when there is something new to tell the sidecar, while the context lasts."""
        self._wakes[name, life] = wake
        try:
            yield
        finally:
            if self._wakes.get((name, life)) is wake:
                del self._wakes[name, life]

    def wake(self, name: str, life: str) -> None:
        """There is something new to tell it."""
        wake = self._wakes.get((name, life))
        if wake is not None:
            wake.set()

    def asking(self, key: Key, now: Instant) -> Mapping[str, Ask]:
        """What is asked of one budget in one metric, by sidecar, at whichever replica it is connected.

        Who is connected to a replica that is gone asks for nothing once it does not act any more on what it was told.
        """
        elsewhere = {
            name: holder.asks[key]
            for name, holder in self._elsewhere.items()
            if key in holder.asks and not self.silent(name, holder.life, 0.0, now)
        }
        return elsewhere | {name: holder.asks[key] for name, holder in self._holders.items() if key in holder.asks}

    # What replicas tell each other.

    def said_here(self, name: str) -> tuple[str, tuple[SharedAsk, ...]]:
        """The life of a sidecar that takes part here and what it asks for; ("", ()) when it does not."""
        holder = self._holders.get(name)
        if holder is None:
            return "", ()
        return holder.life, tuple(
            SharedAsk(*key, ask.want, ask.need, ask.since_wall_ms, ask.held) for key, ask in sorted(holder.asks.items())
        )

    def said_elsewhere(self, name: str, life: str, asks: Iterable[SharedAsk], *, connected: bool, now: Instant) -> None:
        """What another replica says of a sidecar whose newest session is there: it takes part here no more."""
        self._holders.pop(name, None)
        self._elsewhere.pop(name, None)
        if not life:
            return
        self._heard_ns[name, life] = now.boot_ns
        self._lives[name] = [*(one for one in self._lives.get(name, ()) if one != life), life][-LIVES_MAX:]
        if connected:
            self._elsewhere[name] = Holder(
                life,
                {
                    (ask.budget, ask.metric): Ask(
                        ask.want,
                        ask.need,
                        ask.held,
                        now.boot_ns - max(0, now.wall_ms - ask.since_wall_ms) * NANOS // 1000,
                        ask.since_wall_ms,
                    )
                    for ask in asks
                },
            )

    def heard_elsewhere(self, name: str, now: Instant) -> None:
        """It is connected to another replica, which goes on."""
        holder = self._elsewhere.get(name)
        if holder is not None:
            self._heard_ns[name, holder.life] = now.boot_ns
