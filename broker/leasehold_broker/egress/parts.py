"""What the egress is made of: its collaborators as it sees them, and its counts. Owns no behaviour."""

import socket
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from leasehold_broker.domain.call import CallEnd, CallOutcome, CallPlan
from leasehold_broker.domain.honeytokens import Honeytoken
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.trusted_proxy import TrustedProxy
from leasehold_broker.egress.limits import EgressLimits
from leasehold_broker.flows.call import Admitted
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.peer_resolver import PeerResolver
from leasehold_broker.ports.provider import Provider
from leasehold_broker.ports.upstream import Upstream

Cut = Callable[[CallEnd, Refusal], None]


class CallFlow(Protocol):
    """The flow that carries calls through the books; `flows.call.Calls` is it."""

    def lease_of(self, unverified_token: str | None, peer: Peer) -> Lease:
        """The lease that this token exercises for this peer, live or not."""
        ...

    def scope_of(self, lease: Lease, provider: str) -> Scope:
        """What the lease, which must be live, may do at the provider."""
        ...

    async def admit(self, lease: Lease, plan: CallPlan, request_id: str, cut: Cut) -> Admitted:
        """Reserve the worst case and make the hold durable."""
        ...

    def end(self, call_id: str, outcome: CallOutcome) -> None:
        """End an admitted call: decided when called, durable soon."""
        ...


class RefusalLog(Protocol):
    """The flow that makes refusals durable; `flows.refusals.RecordRefusal` is it."""

    async def call_refused(
        self,
        refusal: Refusal,
        peer: Peer | None,
        request_id: str,
        lease: Lease | None,
        provider: str,
        operation: str,
        model: str | None,
    ) -> None:
        """Record it; returns when it is durable."""
        ...


class PublicListener(Protocol):
    """A listening Unix socket at a public path; `adapters.public_socket.PublicSocket` is it."""

    @property
    def listener(self) -> socket.socket:
        """The socket, listening."""
        ...

    def replaced(self) -> bool:
        """True when the path no longer leads to the socket."""
        ...

    def close(self) -> None:
        """Stop listening and give up the path."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """A provider and the origin that serves it here."""

    provider: Provider
    origin: str


@dataclass(slots=True)
class EgressCounts:
    """Numbers for the metrics; only ever written by the egress. Gauges are named `open_...`."""

    connections_over_limit: int = 0
    open_connections: int = 0
    requests: int = 0
    open_requests: int = 0
    body_bytes_waiting: int = 0
    relayed_bytes: int = 0
    keys_redacted: int = 0
    settle_failures: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    connections_of: Counter[str] = field(default_factory=Counter)
    requests_of: Counter[str] = field(default_factory=Counter)
    body_bytes_of: Counter[str] = field(default_factory=Counter)
    """Connections of each peer, proxied requests and body bytes of each caller that has any. Not for metrics: as many
    entries as there are callers."""

    def reserve_body(self, caller: str, count: int) -> None:
        """So many body bytes of this caller are waited for; negative when they are no more."""
        self.body_bytes_waiting += count
        self.body_bytes_of[caller] += count
        if not self.body_bytes_of[caller]:
            del self.body_bytes_of[caller]

    def answered(self, caller: str) -> None:
        """One proxied request of this caller is no more in work."""
        self.requests_of[caller] -= 1
        if not self.requests_of[caller]:
            del self.requests_of[caller]

    def leave(self, peer: str) -> None:
        """One connection of this peer is gone."""
        self.open_connections -= 1
        self.connections_of[peer] -= 1
        if not self.connections_of[peer]:
            del self.connections_of[peer]


@dataclass(frozen=True, slots=True)
class EgressParts:
    """The collaborators of the egress.

    Args:
        calls, refusals: flows.
        targets: by first path segment.
        upstream: where admitted calls go.
        peers: who is at the other end of a connection.
        entropy: for request ids.
        limits: every bound.
        counts: see `EgressCounts`.
        host_names: further Host values to take, lower case, with or without a port.
        sprung_by: the honeytoken among what a refused caller presents.
        proxy: whose word on who calls is taken; None for nobody's.
        reader: where large bodies are read: one at a time, so that many hostile ones cost one thread.
    """

    calls: CallFlow
    refusals: RefusalLog
    targets: Mapping[str, Target]
    upstream: Upstream
    peers: PeerResolver
    entropy: Entropy
    limits: EgressLimits = field(default_factory=EgressLimits)
    counts: EgressCounts = field(default_factory=EgressCounts)
    host_names: frozenset[str] = frozenset()
    sprung_by: Callable[[list[str]], Honeytoken | None] = field(default=lambda _credentials: None)
    proxy: TrustedProxy | None = None
    reader: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "egress-reader"))
