"""How far a revocation has come. Owns "complete", and the view of live leases that a dry run matches against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, assert_never

from leasehold_broker.domain.revocation import (
    ByEnvironment,
    ByKey,
    ByLabel,
    ByLease,
    ByProvider,
    BySidecar,
    BySubject,
    Everything,
    Revocation,
    Selector,
)
from leasehold_broker.domain.scope import matches
from leasehold_broker.domain.values import value


@dataclass(frozen=True, slots=True)
class AppliedRevocation:
    """What one entry ended at one sidecar; its effects are durable there."""

    epoch: int
    leases_ended: int
    calls_cut: int


@dataclass(frozen=True, slots=True)
class SidecarProgress:
    """How far one sidecar is with one revocation.

    Args:
        sidecar: its name.
        connected: it has a session now.
        applied_epoch: highest epoch whose effects are durable there.
        leases_ended, calls_cut: by this revocation; meaningful once applied.
        last_heard_wall_ms: 0 when never.
        lapsed: silent for so long that it refuses by itself.
    """

    sidecar: str
    connected: bool
    applied_epoch: int
    leases_ended: int
    calls_cut: int
    last_heard_wall_ms: int
    lapsed: bool


@dataclass(frozen=True, slots=True)
class RevocationProgress:
    """One revocation at every known sidecar, or at those where it has got further.

    Args:
        revocation: the entry.
        sidecars: by name.
        complete: no known sidecar can still admit what this revokes.
        changes_only: the sidecars are those that have changed since the answer before; all others are as they were.
    """

    revocation: Revocation
    sidecars: tuple[SidecarProgress, ...]
    complete: bool
    changes_only: bool = False

    @classmethod
    def of_all(cls, revocation: Revocation, sidecars: Sequence[SidecarProgress]) -> Self:
        """At every known sidecar."""
        complete = all(sidecar.applied_epoch >= revocation.epoch or sidecar.lapsed for sidecar in sidecars)
        return cls(revocation, tuple(sidecars), complete)


@dataclass(frozen=True, slots=True)
class Behind:
    """Sidecars that may still admit what is revoked.

    Args:
        applied: their names, and up to which epoch each has applied.
        known: how many sidecars there are in all.
    """

    applied: Mapping[str, int]
    known: int

    def names(self, epoch: int) -> list[str]:
        """Of those that lack the entry with this epoch, sorted."""
        return sorted(name for name, applied in self.applied.items() if applied < epoch)

    def complete_to(self, epoch: int) -> int:
        """The highest epoch, at most this one, that none of them lacks."""
        return min((epoch, *self.applied.values()))


@value
class LiveLease:
    """What a sidecar reports of a live lease: names only, enough to match a selector.

    Args:
        name, parent, root: of the lease and its place in the tree; parent "" for a root.
        issuer, subject, environment: whose it is.
        keys, providers: of its scopes.
        labels: verified labels of its subject.
    """

    name: str
    parent: str
    root: str
    issuer: str
    subject: str
    environment: str
    keys: tuple[str, ...]
    providers: tuple[str, ...]
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LiveLeases:
    """A sidecar's live leases; `total` is above the number listed when they did not fit one message."""

    leases: tuple[LiveLease, ...]
    total: int

    @property
    def complete(self) -> bool:
        """True when all are listed."""
        return len(self.leases) >= self.total


class Holder(NamedTuple):
    """A subject at a sidecar, as whose leases a selector matches."""

    sidecar: str
    issuer: str
    subject: str


def selects_live(selector: Selector, lease: LiveLease, by_name: Mapping[str, LiveLease], sidecar: str) -> bool:
    """What `revocation.selects` would say, from reports alone.

    Args:
        selector: what would be revoked.
        lease: of the sidecar.
        by_name: all live leases of it; a live lease's parents are live and among them.
        sidecar: its name.
    """
    match selector:
        case ByLease(name):
            return _in_tree_of(name, lease, by_name)
        case BySubject(issuer, pattern):
            return (not issuer or lease.issuer == issuer) and matches(pattern, lease.subject)
        case ByKey(key):
            return key in lease.keys
        case ByProvider(provider):
            return provider in lease.providers
        case ByEnvironment(environment):
            return lease.environment == environment
        case ByLabel(name, value):
            return (name, value) in lease.labels
        case BySidecar(named):
            return named == sidecar
        case Everything():
            return True
        case _:
            assert_never(selector)


def _in_tree_of(name: str, lease: LiveLease, by_name: Mapping[str, LiveLease]) -> bool:
    if name == lease.root:
        return True
    current: LiveLease | None = lease
    for _ in range(len(by_name)):
        if current is None or current.name == name:
            return current is not None
        current = by_name.get(current.parent)
    return False
