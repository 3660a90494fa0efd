"""One fleet budget in one metric and one window, at the centre: what is free, and what each sidecar was granted.

Owns invariants E1, E2, E4 to E7 of the design notes on this side. What is free is derived, never stored: the cap less
what every slice takes up, which is all that was granted and not returned. So a sidecar that is lost, cloned or restored
cannot make the sum exceed the cap: what it was granted counts as spent until it has given it back by its own word, in
the life that it was granted to.

Totals only grow (`granted`, `returned`, `spent`), so a report may come twice, late or out of order. A slice whose life
is over waits to be written off; what is said of it afterwards tells where the money went, and frees nothing (E6).

Refuses to know time, messages and disks: callers say when a life is over and when a slice may be written off.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class SliceState(StrEnum):
    """Where a slice is in its life; never back."""

    OPEN = "open"
    ENDED = "ended"
    """Its holder's life is over, or was taken over: nothing is granted to it, nothing it returns is believed."""
    WRITTEN_OFF = "written off"


@dataclass(slots=True)
class Slice:
    """What one life of one sidecar was granted of one escrow; amounts in the metric's unit, running totals.

    Args:
        fence: names it; larger than that of every slice made before.
        sidecar, life: the holder.
        granted, returned: `granted - returned` is the right: it is taken out of the cap.
        reported: spent, as the holder says; more than the right when a provider charged beyond a hold.
        written_off: nobody said where it went: counted as spent.
        held: by calls in flight there, as last reported.
    """

    fence: int
    sidecar: str
    life: str
    granted: int = 0
    returned: int = 0
    reported: int = 0
    written_off: int = 0
    held: int = 0
    state: SliceState = SliceState.OPEN

    @property
    def right(self) -> int:
        """What it takes out of the cap."""
        return self.granted - self.returned

    @property
    def spent(self) -> int:
        """What is known to be spent of the right. A report of more frees nothing and takes nothing from others."""
        return min(self.reported, self.right)

    @property
    def outstanding(self) -> int:
        """What may still be spent, or was without our knowing."""
        return self.right - self.spent - self.written_off

    @property
    def stuck(self) -> int:
        """What will never be granted to anybody, though it is not written off yet."""
        return self.outstanding if self.state is SliceState.ENDED else 0

    @property
    def available(self) -> int:
        """What a new call there may hold, as last reported."""
        return max(0, self.right - self.reported - self.held) if self.state is SliceState.OPEN else 0


class EscrowError(RuntimeError):
    """A programmer error: a grant of more than is free or to a slice that is not open, an unknown slice."""


@dataclass(slots=True)
class Escrow:
    """A cap and its slices.

    Args:
        cap: in force now; may be lowered below what is out: then `free` is negative and nothing is granted.
        slices: by fence.
        open_of: of each sidecar the one slice that may be granted to (E7).
    """

    cap: int
    slices: dict[int, Slice] = field(default_factory=dict)
    open_of: dict[str, int] = field(default_factory=dict)
    _rights: int = 0
    _gone: int = 0
    _stuck: int = 0

    @property
    def free(self) -> int:
        """What may be granted; negative after the cap was lowered below what is out (E1: cap = free + rights)."""
        return self.cap - self._rights

    @property
    def pool(self) -> int:
        """What somebody may still be granted: free, or unspent in an open slice. Never negative."""
        return max(0, self.cap - self._gone - self._stuck)

    @property
    def gone(self) -> int:
        """Spent, as reported, or written off."""
        return self._gone

    @property
    def rights(self) -> int:
        """All that was granted and not returned."""
        return self._rights

    def slice_of(self, sidecar: str) -> Slice | None:
        """The slice that this sidecar may be granted to."""
        fence = self.open_of.get(sidecar)
        return None if fence is None else self.slices[fence]

    def restore(self, one: Slice) -> None:
        """Put a stored slice back, or in the place of what was known of it; what its calls hold is not stored."""
        known = self.slices.get(one.fence)
        if known is not None:
            self._rights -= known.right
            self._gone -= known.spent + known.written_off
            self._stuck -= known.stuck
            if known.state is SliceState.OPEN:
                one.held = known.held if one.state is SliceState.OPEN else 0
                self.open_of.pop(known.sidecar, None)
        self.slices[one.fence] = one
        self._rights += one.right
        self._gone += one.spent + one.written_off
        self._stuck += one.stuck
        if one.state is SliceState.OPEN:
            self.open_of[one.sidecar] = one.fence

    def open(self, sidecar: str, life: str, fence: int) -> Slice:
        """A new, empty slice. One that the sidecar had in another life is over.

        Raises:
            EscrowError: the fence is not above all others, or this life has an open slice.
        """
        if fence <= max(self.slices, default=0):
            message = f"fence {fence} is not new"
            raise EscrowError(message)
        self.take_over(sidecar, life)
        if sidecar in self.open_of:
            message = f"{sidecar} has an open slice in this life"
            raise EscrowError(message)
        made = self.slices[fence] = Slice(fence, sidecar, life)
        self.open_of[sidecar] = fence
        return made

    def take_over(self, sidecar: str, life: str) -> Slice | None:
        """Another life of the sidecar speaks now: what an earlier one held is over (E7). Gives that slice, if any."""
        known = self.slice_of(sidecar)
        if known is None or known.life == life:
            return None
        self.end(known.fence)
        return known

    def grant(self, fence: int, amount: int) -> Slice:
        """Add to the right of an open slice.

        Raises:
            EscrowError: more than is free, nothing, or the slice is not open.
        """
        found = self._known(fence)
        if not 0 < amount <= self.free or found.state is not SliceState.OPEN:
            message = f"cannot grant {amount} to slice {fence} ({found.state}); {self.free} are free"
            raise EscrowError(message)
        spent = found.spent
        found.granted += amount
        self._rights += amount
        self._gone += found.spent - spent  # a larger right may cover what was reported beyond it
        return found

    def report(self, fence: int, life: str, returned: int, spent: int, held: int) -> int:
        """Take what the sidecar says, in this life of it.

        A return is believed only of the life that the slice was granted to, while it is open: a copy of that life
        cannot know what the original has spent since (E5, E6). What was spent is believed from any life, up to the
        right.

        Returns:
            What has become free.
        """
        found = self._known(fence)
        gone, stuck = found.spent + found.written_off, found.stuck
        freed = 0
        if found.state is SliceState.OPEN and found.life == life:
            found.held = held
            believed = min(returned, found.granted - min(max(found.reported, spent), found.granted))
            if believed > found.returned:
                freed = believed - found.returned
                found.returned = believed
                self._rights -= freed
        found.reported = max(found.reported, spent)
        if found.state is SliceState.WRITTEN_OFF:
            found.written_off = found.right - found.spent
        self._gone += found.spent + found.written_off - gone
        self._stuck += found.stuck - stuck
        return freed

    def end(self, fence: int) -> None:
        """The life of the holder is over: nothing more is granted or believed to be returned."""
        found = self._known(fence)
        if found.state is SliceState.OPEN:
            found.state = SliceState.ENDED
            found.held = 0
            self._stuck += found.stuck
            del self.open_of[found.sidecar]

    def write_off(self, fence: int) -> int:
        """Count what nobody accounted for as spent. Only once its holder cannot be spending it any more.

        Returns:
            How much.
        """
        found = self._known(fence)
        if found.state is SliceState.WRITTEN_OFF:
            return 0
        self.end(fence)
        self._stuck -= found.stuck
        found.written_off = found.outstanding
        found.state = SliceState.WRITTEN_OFF
        self._gone += found.written_off
        return found.written_off

    def _known(self, fence: int) -> Slice:
        found = self.slices.get(fence)
        if found is None:
            message = f"slice {fence} is not known"
            raise EscrowError(message)
        return found
