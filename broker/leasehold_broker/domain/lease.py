"""The lease and its life. Owns states, renewal and the form of lease tokens; told time and entropy.

A lease ends exactly once: expired, released, revoked. Frozen is not an end: it refuses calls until an operator looks.
"""

import base64
import hmac
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from leasehold_broker.domain.amounts import Amounts, Mask
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import Instant

TOKEN_PREFIX = "lhs_"  # noqa: S105 - the public prefix that secret scanners look for
TOKEN_ENTROPY_BYTES = 32
TOKEN_LENGTH = len(TOKEN_PREFIX) + 43 + 6
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = tuple(first + second for first in _BASE32 for second in _BASE32)
LEASE_PREFIX = "leases/"
"""Of every lease's name."""
TTL_SECONDS_MIN = 1
TTL_SECONDS_MAX = 30 * 24 * 3600


class LeaseState(StrEnum):
    """Where a lease stands."""

    ACTIVE = "active"
    FROZEN = "frozen"
    EXPIRED = "expired"
    RELEASED = "released"
    REVOKED = "revoked"


ENDED = frozenset({LeaseState.EXPIRED, LeaseState.RELEASED, LeaseState.REVOKED})


class Mode(StrEnum):
    """How the right is exercised."""

    BROKERED = "brokered"
    MINTED = "minted"
    DISCLOSED = "disclosed"


@dataclass(frozen=True, slots=True)
class Lease:
    """The time-limited, scoped, capped right to use keys.

    Args:
        name: "leases/<id>", safe to log.
        parent, root, depth: place in the delegation tree; parent "" and root == name for a root lease.
        subject: whose windows its calls are charged to (a delegated lease: the root's).
        scopes: one per provider, each with the key that serves it.
        caps: of this lease alone; UNLIMITED where it has none.
        carved: metrics whose cap is held at the parent for this lease; False metrics are drawn from the parent call
            by call.
        binding: the peer that may use the token ("uid:1000", "cert:<hex>").
        expire_ns, max_expire_ns: deadlines on the boot clock; the wall_ms twins are labels.
        ttl_seconds: as granted, and what a renewal without a wish gives again.
        revocation_epoch: what the sidecar knew at issue; a later matching entry kills the lease.
        process: names the process that it ends with, for whoever watches processes; "" for none.
    """

    name: str
    parent: str
    root: str
    depth: int
    subject: Subject
    scopes: tuple[Scope, ...]
    caps: Amounts
    carved: Mask
    mode: Mode
    binding: str
    create_wall_ms: int
    ttl_seconds: int
    expire_ns: int
    expire_wall_ms: int
    max_expire_ns: int
    max_expire_wall_ms: int
    grant: str
    policy_version: str
    revocation_epoch: int
    renew_count: int = 0
    state: LeaseState = LeaseState.ACTIVE
    state_reason: Reason | None = None
    end_wall_ms: int = 0
    purpose: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    process: str = ""

    @property
    def ended(self) -> bool:
        """True once it can never be used again."""
        return self.state in ENDED

    def scope_for(self, provider: str) -> Scope | None:
        """The scope at `provider`, or None."""
        for scope in self.scopes:
            if scope.provider == provider:
                return scope
        return None

    def dead_reason(self, now: Instant) -> Refusal | None:
        """Why this lease takes no call now, or None."""
        if self.state is LeaseState.ACTIVE:
            if now.boot_ns >= self.expire_ns:
                return Refusal(Reason.LEASE_EXPIRED, f"{self.name} has expired; acquire a new lease")
            return None
        if self.state is LeaseState.REVOKED:
            return Refusal(Reason.LEASE_REVOKED, f"{self.name} was revoked; ask the incident responders")
        if self.state is LeaseState.FROZEN:
            return Refusal(
                Reason.LEASE_FROZEN, f"{self.name} is frozen: usage above its hold was reported; ask the platform team"
            )
        if self.state is LeaseState.EXPIRED:
            reason, how = Reason.LEASE_EXPIRED, "has expired"
        elif self.state_reason is Reason.PROCESS_ENDED:
            reason, how = Reason.PROCESS_ENDED, "ended with the process that acquired it"
        else:
            reason, how = Reason.LEASE_RELEASED, "was released"
        return Refusal(reason, f"{self.name} {how}; acquire a new lease")

    def end(self, state: LeaseState, reason: Reason, now: Instant) -> "Lease":
        """This lease, ended."""
        return replace(self, state=state, state_reason=reason, end_wall_ms=now.wall_ms)

    def frozen(self) -> "Lease":
        """This lease, refusing calls."""
        return replace(self, state=LeaseState.FROZEN, state_reason=Reason.LEASE_FROZEN)

    def within(self, life_seconds: int, now: Instant) -> "Lease":
        """This new lease, ending with a credential that lives this long from `now`, and not renewable beyond it."""
        ttl_seconds = min(self.ttl_seconds, life_seconds)
        end_ns, end_wall_ms = now.after(ttl_seconds), now.wall_ms + ttl_seconds * 1000
        return replace(
            self,
            ttl_seconds=ttl_seconds,
            expire_ns=end_ns,
            expire_wall_ms=end_wall_ms,
            max_expire_ns=min(self.max_expire_ns, now.after(life_seconds)),
            max_expire_wall_ms=min(self.max_expire_wall_ms, now.wall_ms + life_seconds * 1000),
        )

    def renewed(self, ttl_seconds: int, now: Instant, latest_ns: int | None = None) -> "Lease":
        """This lease with a later end, never past its maximum (nor `latest_ns`) and never earlier than it was.

        Raises:
            Refusal: MAX_TTL_REACHED when nothing would be gained.
        """
        wanted = min(now.after(ttl_seconds), self.max_expire_ns)
        if wanted <= self.expire_ns and self.expire_ns >= self.max_expire_ns:
            raise Refusal(Reason.MAX_TTL_REACHED, f"{self.name} has reached its longest life; acquire a new lease")
        if latest_ns is not None:
            wanted = min(wanted, latest_ns)
        expire_ns = max(self.expire_ns, wanted)
        left_ms = (expire_ns - now.boot_ns) // 1_000_000
        return replace(
            self, expire_ns=expire_ns, expire_wall_ms=now.wall_ms + left_ms, renew_count=self.renew_count + 1
        )


def renew_after_seconds(lease: Lease, now: Instant, jitter: float) -> float:
    """When the holder should renew: half of what is left, +/- 10 % by `jitter` in [0, 1). Zero when not renewable."""
    if lease.ended or lease.expire_ns >= lease.max_expire_ns:
        return 0.0
    return max(0.0, now.seconds_until(lease.expire_ns)) * (0.45 + 0.1 * jitter)


def make_token(entropy: bytes) -> Secret:
    """The lease token for 32 handed random bytes: prefix, base64url, CRC-32 in base32 (so that scanners can check).

    Raises:
        ValueError: not 32 bytes.
    """
    if len(entropy) != TOKEN_ENTROPY_BYTES:
        message = f"lease token entropy must be {TOKEN_ENTROPY_BYTES} bytes, got {len(entropy)}"
        raise ValueError(message)
    body = TOKEN_PREFIX + base64.urlsafe_b64encode(entropy).rstrip(b"=").decode()
    return Secret((body + _checksum(body)).encode())


def token_well_formed(unverified_token: str) -> bool:
    """True when prefix, length and checksum are right: the cheap gate before any look-up."""
    return (
        len(unverified_token) == TOKEN_LENGTH
        and unverified_token.startswith(TOKEN_PREFIX)
        and unverified_token.isascii()
        and _checksum(unverified_token[:-6]) == unverified_token[-6:]
    )


def token_digest(pepper: bytes, token: str) -> bytes:
    """What is stored of a token: HMAC-SHA256 under the store's own pepper, 32 bytes."""
    return hmac.digest(pepper, token.encode(), "sha256")


def _checksum(body: str) -> str:
    crc = zlib.crc32(body.encode()) & 0x3FFFFFFF
    return _PAIRS[crc >> 20] + _PAIRS[crc >> 10 & 1023] + _PAIRS[crc & 1023]
