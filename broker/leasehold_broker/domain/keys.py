"""What is known of a provider key, besides the key. Owns the public record; the secret stays in its store."""

from dataclasses import dataclass
from enum import StrEnum


class KeyState(StrEnum):
    """Whether a key may be leased and used."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class KeyKind(StrEnum):
    """Where the secret of a key comes from, and with it how it is sent."""

    STORED = "stored"
    FEDERATED = "federated"
    DYNAMIC = "dynamic"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One provider key, safe to log.

    Args:
        name: unique in the store, e.g. "anthropic-prod".
        provider: which vendor module places and meters it.
        environment: the hard wall: an identity of another environment never leases it.
        state: enabled or disabled.
        version: grows by one each time the value is replaced.
        created_wall_ms: when this version was stored.
        kind: stored in a store; federated: no secret is held, a workload token is exchanged for one that is short; or
            dynamic: a secret engine makes a credential when one is needed, and ends it when it no longer is.
        narrows: what is minted can be held to the models of one lease.
        brokered: False where it yields no single value that a call could carry: it can only be handed out.
    """

    name: str
    provider: str
    environment: str
    state: KeyState
    version: int
    created_wall_ms: int
    kind: KeyKind = KeyKind.STORED
    narrows: bool = False
    brokered: bool = True


class KeyMarkKind(StrEnum):
    """What is remembered of a key's past."""

    USED = "used"
    EXPOSED = "exposed"
    REFUSED = "refused"
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True)
class KeyMark:
    """Something that happened to a version of a key, remembered until the next version.

    Args:
        key, version: what it happened to.
        kind: it was used (the last time, within an hour); handed out in the clear; refused by its provider; its
            provider said that its account has nothing left.
        wall_ms: when.
        lease: under which it was handed out; "" otherwise.
    """

    key: str
    version: int
    kind: KeyMarkKind
    wall_ms: int
    lease: str = ""
