"""The workload tokens that agents have shown, for keys that exchange the agent's own. In memory only, while they live.

A token is kept once it was verified in full, and only where it is good by itself: one that is bound to a key of its
holder is of no use to a provider, which is shown no proof.
"""

from dataclasses import dataclass

from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.token_exchange import ExchangeFault, ExchangeState

HOLDERS_MAX = 1_024
"""Whose tokens are kept; those that were shown longest ago go first."""


@dataclass(frozen=True, slots=True)
class _Shown:
    token: Secret
    expires_wall_ms: int


def holder_name(holder: Subject | None) -> str:
    """Names who a token speaks of, so that no two are one; "" for nobody."""
    return "" if holder is None else f"{len(holder.issuer)}:{holder.issuer}|{holder.subject}"


class AgentTokens:
    """The newest of each holder."""

    def __init__(self, clock: Clock, *, wanted: bool) -> None:
        """Keep nothing where no key wants it."""
        self._clock = clock
        self._wanted = wanted
        self._shown: dict[str, _Shown] = {}

    def __repr__(self) -> str:
        """Counts only."""
        return f"AgentTokens(holders={len(self._shown)})"

    def saw(self, identity: Identity, verified_token: str) -> None:
        """A bearer token was verified."""
        if not self._wanted:
            return
        name = holder_name(identity.subject)
        before = self._shown.pop(name, None)
        fresh = _Shown(Secret(verified_token.encode("ascii")), identity.expires_wall_ms)
        later = before is not None and before.expires_wall_ms > fresh.expires_wall_ms
        self._shown[name] = before if before is not None and later else fresh
        while len(self._shown) > HOLDERS_MAX:
            del self._shown[next(iter(self._shown))]

    def read(self, holder: Subject | None) -> Secret:
        """The token of this holder.

        Raises:
            ExchangeFault: NO_ASSERTION: none was shown in this life of the process, or it has run out.
        """
        name = holder_name(holder)
        shown = self._shown.get(name)
        if shown is None or self._clock.now().wall_ms >= shown.expires_wall_ms:
            self._shown.pop(name, None)
            message = (
                "no bearer token of the agent that lives is known here; renewing the lease shows a fresh one (a token "
                "that is bound to a key of the agent's cannot be exchanged)"
            )
            raise ExchangeFault(ExchangeState.NO_ASSERTION, message)
        return shown.token
