"""Revocations: a selector with an epoch. Owns matching; a lease issued before a matching entry is dead.

Cost is independent of the number of leases: one entry, whatever it matches. Entries are state, not messages: they are
applied in order of epoch, and a gap is never applied as a delta. An entry may also block: then no new lease that it
matches is issued until a later entry lifts it. No sidecar ends a block by its own clock: time may end a right, not make
one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.scope import matches


@dataclass(frozen=True, slots=True)
class ByLease:
    """The lease with this name and every lease delegated from it."""

    lease: str


@dataclass(frozen=True, slots=True)
class BySubject:
    """Every lease of subjects that match the pattern; an empty issuer means any issuer."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class ByKey:
    """Every lease that is served by this key."""

    key: str


@dataclass(frozen=True, slots=True)
class ByProvider:
    """Every lease that reaches this provider."""

    provider: str


@dataclass(frozen=True, slots=True)
class ByEnvironment:
    """Every lease of identities of this environment."""

    environment: str


@dataclass(frozen=True, slots=True)
class ByLabel:
    """Every lease of identities with this value of a verified label."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class BySidecar:
    """Every lease that this sidecar has issued."""

    sidecar: str


@dataclass(frozen=True, slots=True)
class Everything:
    """Every lease."""


Selector = ByLease | BySubject | ByKey | ByProvider | ByEnvironment | ByLabel | BySidecar | Everything


class Cause(StrEnum):
    """Why, in one word, for whoever counts incidents. The names are those of `leasehold.v1.RevocationCause`."""

    UNSTATED = ""
    KEY_LEAKED = "KEY_LEAKED"
    AGENT_COMPROMISED = "AGENT_COMPROMISED"
    OVERSPENDING = "OVERSPENDING"
    OFFBOARDING = "OFFBOARDING"
    POLICY_CHANGE = "POLICY_CHANGE"
    DRILL = "DRILL"


@dataclass(frozen=True, slots=True)
class Order:
    """What a responder orders besides the end of what matches.

    Args:
        cause: why.
        block_new: no new lease that matches is issued, until this is lifted.
        block_seconds: after so long the centre lifts it; 0: only a responder does.
        lifts: epoch of the blocking entry that this one lifts; then it ends no lease. 0: none.
    """

    cause: Cause = Cause.UNSTATED
    block_new: bool = False
    block_seconds: int = 0
    lifts: int = 0


PLAIN: Final = Order()
"""Ends what matches, and nothing else."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry. `note` is the responder's own words, bounded, never a secret."""

    epoch: int
    selector: Selector
    note: str
    revoked_by: str
    create_wall_ms: int
    order: Order = PLAIN

    @property
    def name(self) -> str:
        """Resource name."""
        return f"revocations/{self.epoch}"

    def kills(self, lease: Lease, ancestors: frozenset[str], sidecar: str) -> bool:
        """True when the lease matches and was issued before this entry was known.

        Args:
            lease: the lease.
            ancestors: names of its parents up to the root.
            sidecar: that issued it.
        """
        if self.order.lifts:
            return False
        return lease.revocation_epoch < self.epoch and selects(self.selector, lease, ancestors, sidecar)


def blocks_in_force(entries: Iterable[Revocation]) -> dict[int, Revocation]:
    """The entries that block new leases and have not been lifted, by epoch.

    Args:
        entries: every entry, in any order.
    """
    found, lifted = {}, set()
    for entry in entries:
        if entry.order.block_new:
            found[entry.epoch] = entry
        lifted.add(entry.order.lifts)
    return {epoch: entry for epoch, entry in sorted(found.items()) if epoch not in lifted}


def selects(selector: Selector, lease: Lease, ancestors: frozenset[str], sidecar: str) -> bool:
    """True when the selector matches the lease of this sidecar, whatever its age."""
    match selector:
        case ByLease(name):
            return lease.name == name or name in ancestors
        case BySubject(issuer, pattern):
            return (not issuer or lease.subject.issuer == issuer) and matches(pattern, lease.subject.subject)
        case ByKey(key):
            return any(scope.key == key for scope in lease.scopes)
        case ByProvider(provider):
            return lease.scope_for(provider) is not None
        case ByEnvironment(environment):
            return lease.subject.environment == environment
        case ByLabel(name, value):
            return lease.subject.labels.get(name) == value
        case BySidecar(named):
            return named == sidecar
        case Everything():
            return True
