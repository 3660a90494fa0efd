"""Looks through every key for what is wrong with it. Reads each secret once, to compare it with the others."""

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from leasehold_broker.domain.key_audit import AuditLimits, Elsewhere, Finding, FindingKind, Rotated, findings
from leasehold_broker.domain.keys import KeyKind, KeyMark, KeyRecord, KeyState
from leasehold_broker.domain.policy import Policy
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.key_source import SourceFault
from leasehold_broker.ports.key_store import KeyStore
from leasehold_broker.ports.privileges import Privileged


@dataclass(frozen=True, slots=True)
class Beside:
    """The keys of another sidecar, with which ours are compared.

    Args:
        where: its configuration, for messages.
        keys: its keys.
        configured: as of `audit_keys`.
    """

    where: str
    keys: KeyStore
    configured: Mapping[str, str]


async def audit_keys(
    keys: KeyStore,
    configured: Mapping[str, str],
    policy: Policy,
    marks: Iterable[KeyMark] | None,
    limits: AuditLimits,
    clock: Clock,
    entropy: Entropy,
    rotated: Callable[[KeyRecord], Rotated | None] = lambda _: None,
    beside: Sequence[Beside] = (),
) -> tuple[Finding, ...]:
    """All findings.

    Args:
        keys: to look through.
        configured: names that the configuration gives, and their store; one that cannot be read is a finding.
        policy: whose grants are looked at.
        marks: as `domain.key_audit.findings`.
        limits: when something is a finding.
        clock: for ages.
        entropy: for the key of the digests, which is forgotten afterwards.
        rotated: how a key is rotated; None for one that is not.
        beside: other sidecars, whose keys are only compared.

    Raises:
        Refusal: KEY_UNAVAILABLE: the local store cannot be read.
    """
    records, salt = keys.records(), entropy.bytes(32)
    digests, unreadable = await _digests(keys, configured, salt)
    found = [Finding(FindingKind.UNREADABLE, name, why) for name, why in unreadable]
    elsewhere: list[Elsewhere] = []
    for other in beside:
        theirs, missing = await _digests(other.keys, other.configured, salt)
        why = f"in {other.where}, so it is not compared"
        found += [Finding(FindingKind.UNREADABLE, name, f"{what} ({why})") for name, what in missing]
        of = {record.name: record.environment for record in other.keys.records()}
        elsewhere += [Elsewhere(name, of[name], other.where, digest) for name, digest in theirs.items()]
    rotations = {record.name: how for record in records if (how := rotated(record)) is not None}
    now_ms = clock.now().wall_ms
    return (*found, *findings(records, policy, marks, digests, limits, now_ms, rotations, elsewhere))


async def _digests(
    keys: KeyStore, configured: Mapping[str, str], salt: bytes
) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """Of every secret that can be read, by name; and those that cannot, each with a sentence."""
    records = keys.records()
    known, digests = {record.name for record in records}, dict[str, bytes]()
    unreadable = [(name, f"it cannot be read from {where}") for name, where in configured.items() if name not in known]
    for record in records:
        if not _held(record):
            continue
        try:
            secret = await keys.secret(record.name)
        except Refusal as refusal:
            unreadable.append((record.name, refusal.message))
        else:
            digests[record.name] = hmac.digest(salt, secret.reveal(), hashlib.sha256)
    return digests, unreadable


async def audit_privileges(
    places: Mapping[str, tuple[Privileged, Sequence[str]]], rotated: Collection[str] = ()
) -> tuple[Finding, ...]:
    """What our logins at stores may do beyond what they need; a store that does not tell is a finding too.

    Args:
        places: by a name for the finding; with the paths there that belong to other environments.
        rotated: names of the keys that the same logins rotate.
    """
    found: list[Finding] = []
    for name, (place, apart) in places.items():
        try:
            found += [Finding(FindingKind.WIDE, name, why) for why in await place.excess(apart, rotated)]
        except SourceFault as fault:
            why = f"what its login may do cannot be asked: {fault}"
            found.append(Finding(FindingKind.UNREADABLE, name, why))
    return tuple(found)


def _held(record: KeyRecord) -> bool:
    """True where there is a secret to compare; that of a disabled key is not handed out, not even to this."""
    return record.kind is KeyKind.STORED and record.state is KeyState.ENABLED
