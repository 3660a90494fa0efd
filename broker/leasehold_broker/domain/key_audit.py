"""What is wrong with keys that nobody complains of. Owns the findings of `keys audit`; knows digests, no secret."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from leasehold_broker.domain.amounts import UNLIMITED
from leasehold_broker.domain.keys import KeyKind, KeyMark, KeyMarkKind, KeyRecord
from leasehold_broker.domain.lease import Mode
from leasehold_broker.domain.policy import Grant, Policy
from leasehold_broker.domain.scope import ANYTHING

DAY_MS = 24 * 3600 * 1000


class FindingKind(StrEnum):
    """What was found."""

    OLD = "old"
    DUE = "due"
    UNUSED = "unused"
    OVER_SCOPED = "over_scoped"
    SHARED = "shared"
    EXPOSED = "exposed"
    REFUSED = "refused"
    EXHAUSTED = "exhausted"
    UNREADABLE = "unreadable"
    WIDE = "wide"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: which key, or for WIDE which store, and one sentence."""

    kind: FindingKind
    key: str
    why: str


@dataclass(frozen=True, slots=True)
class AuditLimits:
    """From when on something is a finding, in days.

    Args:
        age: older stored keys are old.
        due: so long before that they are due.
        unused: keys without a use for so long are unused.
    """

    age: int
    due: int
    unused: int


@dataclass(frozen=True, slots=True)
class Rotated:
    """A key that is rotated.

    Args:
        due_wall_ms: when, by its schedule; None where it has none.
        admin_key: name of the key that its minter logs in with; "" for none of ours.
    """

    due_wall_ms: int | None
    admin_key: str = ""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A key that another sidecar's configuration names, to be compared with.

    Args:
        name: there.
        environment: of it.
        where: that configuration, for messages.
        digest: of its secret, under the same key as those of `findings`.
    """

    name: str
    environment: str
    where: str
    digest: bytes


def findings(
    records: Sequence[KeyRecord],
    policy: Policy,
    marks: Iterable[KeyMark] | None,
    digests: Mapping[str, bytes],
    limits: AuditLimits,
    now_wall_ms: int,
    rotated: Mapping[str, Rotated] | None = None,
    elsewhere: Sequence[Elsewhere] = (),
) -> tuple[Finding, ...]:
    """Everything that is wrong, by key.

    Args:
        records: all keys.
        policy: whose grants and budgets are looked at.
        marks: what is remembered of the keys' past; None when that is not known, then nothing is said of it.
        digests: of the secrets, by name, under a key of this run alone; equal ones are equal secrets.
        limits: when something is a finding.
        now_wall_ms: now.
        rotated: keys with a rotation, by name.
        elsewhere: keys of other sidecars: one of another environment must not be the same secret.
    """
    rotations = rotated or {}
    makes = {each.admin_key: name for name, each in rotations.items() if each.admin_key}
    found: list[Finding] = []
    known = None if marks is None else {(mark.key, mark.kind): mark for mark in sorted(marks, key=_when)}
    for record in sorted(records, key=lambda each: each.name):
        found += _age(record, limits, now_wall_ms, rotations.get(record.name))
        found += _grants(record, policy, makes.get(record.name, ""), rotated=record.name in rotations)
        found += _shared(record, records, digests)
        found += _shared_elsewhere(record, digests.get(record.name), elsewhere)
        if known is not None:
            found += _past(record, known, limits, now_wall_ms, admin=record.name in makes)
    return tuple(found)


def _when(mark: KeyMark) -> int:
    return mark.wall_ms


def _age(record: KeyRecord, limits: AuditLimits, now_wall_ms: int, rotated: Rotated | None) -> Iterable[Finding]:
    if record.kind is not KeyKind.STORED or not record.created_wall_ms:
        return
    days = (now_wall_ms - record.created_wall_ms) // DAY_MS
    if days < -1:
        why = f"version {record.version} was stored in {-days} days by its store's clock: how old it is is not known"
        yield Finding(FindingKind.OLD, record.name, why)
    elif days > limits.age:
        yield Finding(FindingKind.OLD, record.name, f"version {record.version} is {days} days old, limit {limits.age}")
    elif rotated is not None and rotated.due_wall_ms is not None:
        # Its schedule sees to it before the limit; what has not happened when it was due is a finding.
        late = (now_wall_ms - rotated.due_wall_ms) // DAY_MS
        if late >= 1:
            yield Finding(FindingKind.DUE, record.name, f"its rotation was due {late} days ago and has not happened")
        elif (rotated.due_wall_ms - record.created_wall_ms) // DAY_MS > limits.age:
            yield Finding(FindingKind.DUE, record.name, f"its rotation comes later than the limit of {limits.age} days")
    elif days > limits.age - limits.due:
        yield Finding(FindingKind.DUE, record.name, f"version {record.version} is due in {limits.age - days} days")


def _grants(record: KeyRecord, policy: Policy, makes: str, *, rotated: bool) -> Iterable[Finding]:
    giving = [grant for grant in policy.grants if record.name in grant.keys and grant.environment == record.environment]
    if makes:
        for grant in giving:
            why = f"grant {grant.name!r} names it, and it makes the keys of {makes!r}: no agent may have it"
            yield Finding(FindingKind.OVER_SCOPED, record.name, why)
        return
    if not giving:
        yield Finding(FindingKind.UNUSED, record.name, f"no grant for environment {record.environment!r} names it")
    for grant in giving:
        scopes = [scope for scope in grant.scopes if scope.provider == record.provider]
        wide = []
        if any(scope.models in {(), (ANYTHING,)} for scope in scopes):
            wide.append("any model")
        if ANYTHING in grant.subjects:
            wide.append("any subject of its issuer")
        if record.name in grant.disclosed_keys:
            wide.append("the key itself" if rotated else "the key itself, and no rotation is known to replace it")
        if Mode.BROKERED in grant.modes and not _bounded(record, grant, policy):
            wide.append("money without a cap, in the grant or in a budget")
        if wide:
            yield Finding(FindingKind.OVER_SCOPED, record.name, f"grant {grant.name!r} gives {', '.join(wide)}")


def _bounded(record: KeyRecord, grant: Grant, policy: Policy) -> bool:
    """Whether anything stops what is spent with this key under this grant."""
    applying = [
        budget.limit
        for budget in policy.budgets
        if budget.applies_to(record.provider, record.name, record.environment, {})
    ]
    held = [grant.caps, *(limit.caps for limit in (*grant.windows, *applying) if limit.hard)]
    return any(caps.cost_micro_usd < UNLIMITED for caps in held)


def _shared(record: KeyRecord, records: Sequence[KeyRecord], digests: Mapping[str, bytes]) -> Iterable[Finding]:
    mine = digests.get(record.name)
    for other in records:
        if mine is None or other.name == record.name or digests.get(other.name) != mine:
            continue
        apart = other.environment != record.environment
        where = f"of environment {other.environment!r}, not {record.environment!r}" if apart else "under another name"
        yield Finding(FindingKind.SHARED, record.name, f"is the same secret as {other.name!r} {where}")


def _shared_elsewhere(record: KeyRecord, mine: bytes | None, elsewhere: Sequence[Elsewhere]) -> Iterable[Finding]:
    for other in elsewhere:
        if mine is not None and other.digest == mine and other.environment != record.environment:
            where = f"of environment {other.environment!r} in {other.where}, not {record.environment!r}"
            yield Finding(FindingKind.SHARED, record.name, f"is the same secret as {other.name!r} {where}")


def _past(
    record: KeyRecord,
    known: Mapping[tuple[str, KeyMarkKind], KeyMark],
    limits: AuditLimits,
    now_wall_ms: int,
    *,
    admin: bool,
) -> Iterable[Finding]:
    used, exposed, refused, exhausted = (
        known.get((record.name, kind))
        for kind in (KeyMarkKind.USED, KeyMarkKind.EXPOSED, KeyMarkKind.REFUSED, KeyMarkKind.EXHAUSTED)
    )
    if exposed is not None and exposed.version == record.version:
        yield Finding(FindingKind.EXPOSED, record.name, f"version {record.version} was handed out to {exposed.lease}")
    if refused is not None and refused.version == record.version and not refused.lease:
        yield Finding(FindingKind.REFUSED, record.name, f"its provider refuses version {record.version}")
    if exhausted is not None and exhausted.version == record.version and not exhausted.lease:
        yield Finding(FindingKind.EXHAUSTED, record.name, "its provider says that its account has nothing left")
    last_ms = record.created_wall_ms if used is None else used.wall_ms
    days = (now_wall_ms - last_ms) // DAY_MS
    if last_ms and days > limits.unused and not admin:
        ever = "was never used here" if used is None else f"was last used {days} days ago"
        yield Finding(FindingKind.UNUSED, record.name, ever)
