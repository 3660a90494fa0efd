"""Who may have what. Owns grants, the decision and its explanation. Deny by default; environments are a hard wall.

One grant must cover the whole request: grants are never added up. They are tried in file order; the first that covers
wins. When none does, the answer is the denial of the grant that came nearest (subject matched, then request failed).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from leasehold_broker.domain.amounts import METRICS, UNLIMITED, Amounts
from leasehold_broker.domain.identity import Identity
from leasehold_broker.domain.key_choice import KeyChoice
from leasehold_broker.domain.keys import KeyRecord
from leasehold_broker.domain.lease import Mode
from leasehold_broker.domain.limits import SOFT_PERCENT_DEFAULT, Budget, WindowLimit
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.scope import ANYTHING, Scope, matches, narrow


@dataclass(frozen=True, slots=True)
class Grant:
    """One rule of the policy file.

    Args:
        name: unique; appears in leases and events.
        issuer: verified issuer that the identity must come from.
        subjects: patterns (exact, or ending in "*"); at least one.
        claims: claim name to the values of which one must be present (a claim that is a list matches by member).
        environment: the only environment whose keys and identities this grant joins.
        keys: names of keys, in order of preference.
        scopes: ceilings, one per provider; a provider without one is not granted.
        caps: ceilings of the lease's own caps; UNLIMITED where the grant has none.
        ttl_seconds_max: longest life of one issue or renewal.
        life_seconds_max: longest life with all renewals.
        modes: allowed modes.
        windows: budgets per subject, or per value of a label, over a span, and rates.
        leases_max: live leases of one subject under this grant.
        delegation_depth_max: 0 forbids delegation.
        peer_uids: when not empty, only callers that the kernel knows by one of these uids.
        soft_percent: of a cap of a lease, at which a warning is recorded; 0 for none.
        lower_output: True: where a call's worst case does not fit its budgets, its output limit is lowered to what
            fits; False: it is refused.
        minted_seconds_max: within how long a revocation is promised to reach a token that was handed out: no token that
            lives longer is handed out. 0: none is.
        disclosed_keys: names of the stored keys that may be handed out themselves.
        key_weights: shares of new leases by key; empty: the first key that can serve.
    """

    name: str
    issuer: str
    subjects: tuple[str, ...]
    environment: str
    keys: tuple[str, ...]
    scopes: tuple[Scope, ...]
    caps: Amounts
    ttl_seconds_max: int
    life_seconds_max: int
    modes: frozenset[Mode]
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    windows: tuple[WindowLimit, ...] = ()
    leases_max: int = 100
    delegation_depth_max: int = 0
    peer_uids: frozenset[int] = field(default=frozenset())
    soft_percent: int = SOFT_PERCENT_DEFAULT
    lower_output: bool = True
    minted_seconds_max: int = 0
    disclosed_keys: tuple[str, ...] = ()
    key_weights: Mapping[str, int] = field(default_factory=dict)

    @property
    def key_choice(self) -> KeyChoice:
        """What it says of keys."""
        return KeyChoice(self.keys, self.environment, self.disclosed_keys, self.key_weights)

    def check_uid(self, uid: int | None) -> None:
        """Refuse a caller, or the holder of a delegated lease, whose verified uid is not one of `peer_uids`.

        Raises:
            Refusal: POLICY_DENIED.
        """
        if self.peer_uids and uid not in self.peer_uids:
            who = "a caller without a uid" if uid is None else f"uid {uid}"
            raise Refusal(
                Reason.POLICY_DENIED,
                f"grant {self.name!r} is not for {who}: it names the local users it is for; ask the platform team",
                detail=f"peer_uids: {', '.join(map(str, sorted(self.peer_uids)))}",
            )

    def covers_identity(self, identity: Identity) -> bool:
        """True when issuer, subject pattern, claims and environment all match."""
        subject = identity.subject
        return (
            subject.issuer == self.issuer
            and bool(self.environment)
            and subject.environment == self.environment
            and any(matches(pattern, subject.subject) for pattern in self.subjects)
            and all(_claim_matches(identity.claims.get(name), allowed) for name, allowed in self.claims.items())
        )

    def identity_mismatch(self, identity: Identity) -> str | None:
        """Why this grant does not cover the identity, in words; None exactly when `covers_identity`."""
        subject = identity.subject
        if subject.issuer != self.issuer:
            return f"it is for issuer {self.issuer!r}, the identity's is {subject.issuer!r}"
        if not self.environment or subject.environment != self.environment:
            return f"it is for environment {self.environment!r}, the identity's is {subject.environment!r}"
        if not any(matches(pattern, subject.subject) for pattern in self.subjects):
            return f"subject {subject.subject!r} matches none of: {', '.join(self.subjects)}"
        for name, allowed in self.claims.items():
            if not _claim_matches(identity.claims.get(name), allowed):
                return f"claim {name!r} has none of: {', '.join(allowed)}"
        return None


def _claim_matches(value: object, allowed: tuple[str, ...]) -> bool:
    if isinstance(value, str):
        return value in allowed
    return isinstance(value, list) and any(isinstance(member, str) and member in allowed for member in value)


@dataclass(frozen=True, slots=True)
class Policy:
    """All grants of one version, and budgets beside them. `version` is a digest of the files."""

    version: str
    grants: tuple[Grant, ...]
    budgets: tuple[Budget, ...] = ()

    def grant(self, name: str) -> Grant | None:
        """The grant by name, or None when this version has none."""
        for grant in self.grants:
            if grant.name == name:
                return grant
        return None


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a caller asks for. Unstated caps are UNLIMITED, unstated TTL is None: the grant's ceiling is taken."""

    scopes: tuple[Scope, ...]
    caps: Amounts
    ttl_seconds: int | None
    mode: Mode
    purpose: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a grant gives for a request."""

    grant: Grant
    scopes: tuple[Scope, ...]
    caps: Amounts
    ttl_seconds: int
    mode: Mode


def decide(
    policy: Policy,
    identity: Identity,
    request: LeaseRequest,
    keys: Sequence[KeyRecord],
    uid: int | None = None,
    draw: float = 0.0,
) -> Terms:
    """The terms for this request.

    `uid` is the caller's, as the kernel says, None when it says none; `draw`, in [0, 1), is the chance that decides
    between keys by weight.

    Raises:
        Refusal: POLICY_DENIED, ENVIRONMENT_MISMATCH, SCOPE_EXCEEDED, MODEL_NOT_ALLOWED, DISCLOSURE_NOT_ALLOWED,
            KEY_UNAVAILABLE, KEY_DISABLED.
    """
    nearest: Refusal | None = None
    for grant in policy.grants:
        if not grant.covers_identity(identity):
            continue
        try:
            return terms_under(grant, request, keys, uid, draw)
        except Refusal as refusal:
            nearest = nearest or refusal
    if nearest is not None:
        raise nearest
    if not identity.subject.environment:
        raise Refusal(
            Reason.ENVIRONMENT_MISMATCH,
            "this identity carries no environment; the issuer's mapping in the sidecar's configuration must give one",
        )
    raise Refusal(Reason.POLICY_DENIED, "no grant of the policy covers this identity; ask the platform team for one")


@dataclass(frozen=True, slots=True)
class GrantVerdict:
    """What one grant says to a request. `terms` when it covers it; else `why_not`, and `refusal` once it came near.

    Args:
        grant: name of the grant.
        terms: what it gives.
        why_not: one sentence.
        refusal: None when the grant does not cover the identity at all.
    """

    grant: str
    terms: Terms | None
    why_not: str = ""
    refusal: Refusal | None = None


def explain(
    policy: Policy, identity: Identity, request: LeaseRequest, keys: Sequence[KeyRecord], uid: int | None = None
) -> tuple[GrantVerdict, ...]:
    """What each grant says, in the order in which `decide` tries them. The first with terms is the one it takes."""
    verdicts: list[GrantVerdict] = []
    for grant in policy.grants:
        mismatch = grant.identity_mismatch(identity)
        if mismatch is not None:
            verdicts.append(GrantVerdict(grant.name, None, mismatch))
            continue
        try:
            verdicts.append(GrantVerdict(grant.name, terms_under(grant, request, keys, uid)))
        except Refusal as refusal:
            verdicts.append(GrantVerdict(grant.name, None, refusal.message, refusal))
    return tuple(verdicts)


def terms_under(
    grant: Grant, request: LeaseRequest, keys: Sequence[KeyRecord], uid: int | None = None, draw: float = 0.0
) -> Terms:
    """The terms of `grant` for this request. Raises the same refusals as `decide`."""
    grant.check_uid(uid)
    if request.mode not in grant.modes:
        raise Refusal(
            Reason.DISCLOSURE_NOT_ALLOWED,
            f"mode {request.mode} is not granted; granted: {', '.join(sorted(grant.modes))}",
        )
    scopes = tuple(_scope_under(grant, wanted, keys, request.mode, draw) for wanted in request.scopes)
    if request.mode is not Mode.BROKERED:
        check_handed_out(request, scopes, keys)
    ttl_seconds = request.ttl_seconds or grant.ttl_seconds_max
    if ttl_seconds > grant.ttl_seconds_max:
        raise Refusal(
            Reason.SCOPE_EXCEEDED,
            f"ttl of {ttl_seconds} s is above the granted {grant.ttl_seconds_max} s; ask for less",
        )
    return Terms(grant, scopes, caps_under(request.caps, grant.caps), ttl_seconds, request.mode)


def caps_under(wanted: Amounts, ceiling: Amounts) -> Amounts:
    """The caps to issue; what is not stated is taken from the ceiling.

    Raises:
        Refusal: SCOPE_EXCEEDED where a stated cap is above the ceiling.
    """
    for metric, cap, top in zip(METRICS, wanted, ceiling, strict=True):
        if top < cap < UNLIMITED:
            raise Refusal(Reason.SCOPE_EXCEEDED, f"{metric} cap of {cap} is above the granted {top}; ask for less")
    return Amounts(*(min(cap, top) for cap, top in zip(wanted, ceiling, strict=True)))


def check_handed_out(request: LeaseRequest, scopes: tuple[Scope, ...], keys: Iterable[KeyRecord]) -> None:
    """Refuse what nobody could hold a handed-out credential to: its calls do not come through the sidecar.

    Raises:
        Refusal: DISCLOSURE_NOT_ALLOWED.
    """
    why = ""
    if len(scopes) != 1:
        why = "gives one credential for one provider; acquire one lease for each"
    elif any(cap < UNLIMITED for cap in request.caps):
        why = "cannot hold calls to a cap, as they do not come through the sidecar; leave the limits out"
    else:
        scope = scopes[0]
        narrows = any(key.narrows for key in keys if key.name == scope.key)
        limited = scope.operations or scope.tools or scope.max_output_tokens_per_request
        if limited or (scope.models not in {(), (ANYTHING,)} and not narrows):
            why = "cannot hold calls to models, operations, tools or output limits; the grant must not name any"
    if why:
        raise Refusal(Reason.DISCLOSURE_NOT_ALLOWED, f"mode {request.mode} {why}")


def _scope_under(grant: Grant, wanted: Scope, keys: Sequence[KeyRecord], mode: Mode, draw: float) -> Scope:
    ceiling = next((scope for scope in grant.scopes if scope.provider == wanted.provider), None)
    if ceiling is None:
        granted = ", ".join(scope.provider for scope in grant.scopes)
        raise Refusal(Reason.SCOPE_EXCEEDED, f"provider {wanted.provider!r} is not granted; granted: {granted}")
    if wanted.key and wanted.key not in grant.keys:
        raise Refusal(Reason.SCOPE_EXCEEDED, f"key {wanted.key!r} is not granted; leave the key out to be given one")
    key = grant.key_choice.choose(wanted.provider, wanted.key, mode, keys, draw)
    scope = narrow(wanted, ceiling)
    return Scope(scope.provider, key, scope.models, scope.operations, scope.tools, scope.max_output_tokens_per_request)
