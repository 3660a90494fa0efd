"""What has been shown before, and by whom. Owns a bounded table of token and proof ids; never keyed by token text.

Token text has twins (the high-s form of an ECDSA signature, padding): a table by text would be blind to them.

The table forgets nothing early: a full one refuses. It lives in memory, so whoever uses it keeps each new entry in the
store before he answers, and gives the entries back at the next start: a restart forgets nothing either.
"""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.time import NANOS, Instant
from leasehold_broker.domain.workload_claims import rejected

ENTRIES_PER_ISSUER_MAX = 50_000
MARGIN_SECONDS = 5
"""Kept this long beyond expiry and leeway, so that no clock reading lets a token back in."""
NOBODY = ""
"""Holder of what may be shown once only: no second showing is by the same holder."""


@dataclass(frozen=True, slots=True)
class Showing:
    """That something was shown for the first time, as it is kept in the store.

    Args:
        table: name of the table, the issuer rule's.
        key: digest of what was shown, hexadecimal.
        holder: binding of the peer that may show it again; `NOBODY` for none.
        until_wall_ms: until when it must be remembered.
    """

    table: str
    key: str
    holder: str
    until_wall_ms: int


class Showings:
    """First showings of one issuer's tokens and proofs."""

    def __init__(self, table: str, entries_max: int = ENTRIES_PER_ISSUER_MAX) -> None:
        """Start empty; `table` is the issuer rule's name."""
        self._table = table
        self._entries_max = entries_max
        self._holders: dict[str, tuple[str, int]] = {}
        self._ends: list[tuple[int, str]] = []

    def __len__(self) -> int:
        """Entries held."""
        return len(self._holders)

    def restore(self, showings: Iterable[Showing], now: Instant) -> None:
        """Take what an earlier life of this process has kept of this table."""
        for showing in showings:
            left_ms = showing.until_wall_ms - now.wall_ms
            if showing.table == self._table and left_ms > 0:
                self._put(showing.key, showing.holder, now.boot_ns + left_ms * 1_000_000)

    def claim(self, what: str, shown_id: str, holder: str, seconds_left: int, now: Instant) -> Showing | None:
        """Claim an id, in one step: of two who come with the same one, the second is refused.

        Args:
            what: "token" or "proof", and for a proof whose: separates ids that may be equal.
            shown_id: the verified `jti`.
            holder: binding of the peer that may show it again, or `NOBODY`.
            seconds_left: for how long it could be shown, leeway included.
            now: the current instant.

        Returns:
            What must be durable before the caller is let in; None when this very holder has shown it before.

        Raises:
            Refusal: REPLAY_DETECTED, CLAIM_REJECTED (no id), IDENTITY_REJECTED (table full).
        """
        if not shown_id:
            raise rejected(Reason.CLAIM_REJECTED, "claim 'jti' is missing; this issuer's replay policy needs it")
        while self._ends and self._ends[0][0] <= now.boot_ns:
            end_ns, ended = heapq.heappop(self._ends)
            if self._holders.get(ended, (NOBODY, 0))[1] == end_ns:
                del self._holders[ended]
        key = hashlib.sha256(f"{what}\0{shown_id}".encode()).hexdigest()
        known = self._holders.get(key)
        if known is not None:
            first = known[0]
            if first != holder or holder == NOBODY:
                seen = f"first presented by {first}, now by {holder}" if first and holder else "shown before"
                raise rejected(Reason.REPLAY_DETECTED, f"{what.partition(' ')[0]} {seen}")
            return None
        if len(self._holders) >= self._entries_max:
            raise rejected(Reason.IDENTITY_REJECTED, f"replay table is full ({self._entries_max} live entries)")
        kept_seconds = seconds_left + MARGIN_SECONDS
        self._put(key, holder, now.boot_ns + kept_seconds * NANOS)
        return Showing(self._table, key, holder, now.wall_ms + kept_seconds * 1000)

    def forget(self, showing: Showing) -> None:
        """Take back a claim that could not be made durable: nobody was let in by it."""
        self._holders.pop(showing.key, None)

    def _put(self, key: str, holder: str, end_ns: int) -> None:
        self._holders[key] = (holder, end_ns)
        heapq.heappush(self._ends, (end_ns, key))
