"""The port to what replicas of a collector tell each other about the sidecars that are connected to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.budget_changes import BudgetRows
from leasehold_broker.domain.fleet_budget import SharedAsk
from leasehold_broker.domain.key_use import KeyUse
from leasehold_broker.domain.revocation_progress import LiveLeases
from leasehold_broker.ports.revocation_log import KnownSidecar


@dataclass(frozen=True, slots=True)
class SidecarNote:
    """What one replica says of one sidecar.

    Args:
        known: as the replica knows it.
        replica: whose word this is: the one that it connected to last.
        session: counts the sessions of this sidecar over all replicas; 0 before it is claimed.
        connected: it has a session there now.
        heard_age_ms: how long it had been silent when this was said; for one that is not connected.
        live, budgets, applied_budget_change, key_uses: as it reported last; no uses until its session has told.
        life: of its process there, when that takes part in fleet budgets; else empty.
        asks: what that life wants of fleet budgets.
    """

    known: KnownSidecar
    replica: str
    session: int
    connected: bool
    heard_age_ms: int
    live: LiveLeases
    budgets: BudgetRows
    applied_budget_change: int
    key_uses: tuple[KeyUse, ...] | None = None
    life: str = ""
    asks: tuple[SharedAsk, ...] = ()


class FleetBoard(Protocol):
    """Notes by sidecar, and a beat by replica. One for each replica: it remembers what it has given out."""

    @property
    def replica(self) -> str:
        """Name of this replica."""
        ...

    async def claim(self, notes: Sequence[SidecarNote]) -> Mapping[str, int]:
        """Put up notes of sidecars that have connected here; each gets the next session of its sidecar.

        Returns:
            Sessions, by sidecar.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...

    async def post(self, notes: Sequence[SidecarNote]) -> None:
        """Put up what is new of claimed sessions, and this replica's next beat. What was claimed since is left alone.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...

    async def read(self) -> tuple[Sequence[SidecarNote], Mapping[str, int]]:
        """Notes that have changed since the last call, by whomever, and the beats of all replicas.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...
