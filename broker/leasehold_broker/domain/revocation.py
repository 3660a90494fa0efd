"""Revocations: a selector with an epoch. Owns matching; a lease issued before a matching entry is dead.

Cost is independent of the number of leases: one entry, whatever it matches. Entries are state, not messages: they are
applied in order of epoch, and a gap is never applied as a delta.
"""

from dataclasses import dataclass

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
class Everything:
    """Every lease."""


Selector = ByLease | BySubject | ByKey | ByProvider | ByEnvironment | Everything


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry. `note` is the responder's own words, bounded, never a secret."""

    epoch: int
    selector: Selector
    note: str
    revoked_by: str
    create_wall_ms: int

    @property
    def name(self) -> str:
        """Resource name."""
        return f"revocations/{self.epoch}"

    def kills(self, lease: Lease, ancestors: frozenset[str]) -> bool:
        """True when the lease matches and was issued before this entry was known.

        Args:
            lease: the lease.
            ancestors: names of its parents up to the root.
        """
        return lease.revocation_epoch < self.epoch and selects(self.selector, lease, ancestors)


def selects(selector: Selector, lease: Lease, ancestors: frozenset[str]) -> bool:
    """True when the selector matches the lease, whatever its age."""
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
        case Everything():
            return True
