"""Whom we believe, and how far. Owns the rule for one issuer and the choice among rules; refuses to read a token.

Rules are strangers to each other: each has its own keys, algorithms and audience, and the issuer it speaks for is the
first half of every subject it names. So no issuer can answer for another, whatever its tokens claim.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from leasehold_broker.domain.http_url import http_url_wrong, in_the_clear, shown
from leasehold_broker.domain.spiffe import trust_domain_of, trust_domain_wrong

LEEWAY_SECONDS_MAX = 60
LIFETIME_SECONDS_MAX = 7 * 24 * 3600
TEXT_CHARACTERS_MAX = 1024
LABELS_MAX = 16
LABEL_NAME_CHARACTERS_MAX = 64

ASYMMETRIC_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
SPIFFE_ALGORITHMS = ASYMMETRIC_ALGORITHMS - {"EdDSA", "Ed25519"}
"""JWT-SVID, section 2.1: only these."""

NO_TYPE = ""
"""In `IssuerRule.token_types`: the header may have no `typ`."""


class IssuerKind(StrEnum):
    """What shape the issuer's tokens have."""

    OIDC = "oidc"
    KUBERNETES = "kubernetes"
    SPIFFE = "spiffe"


class Replay(StrEnum):
    """What is done about a token that is presented again."""

    OFF = "off"
    BIND_FIRST_PEER = "bind-first-peer"
    SINGLE_USE = "single-use"


class Proof(StrEnum):
    """What must come with a token to prove that whoever shows it holds the key it was issued for."""

    NONE = "none"
    MTLS = "mtls"
    DPOP = "dpop"
    WIT = "wit"


WIT_TYPE = "wit+jwt"
"""`typ` of a workload identity token, which is never a bearer token (draft-ietf-wimse-workload-creds-02)."""


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the issuer's public keys come from. Exactly one of `url` and `path`.

    Args:
        url: of a JWKS or SPIFFE bundle; https, or http to a loopback address.
        path: of a JWKS or SPIFFE bundle file, re-read when it changes.
        ca_path: certificates (PEM) to trust for `url` instead of the system's.
        bearer_path: file with a token to send to `url` (the Kubernetes API server asks for one); https only. Read
            anew for each fetch.
        refresh_seconds: how often the set is fetched again without need.
        stale_seconds_max: how long the last good set serves when the source fails.
    """

    url: str = ""
    path: str = ""
    ca_path: str = ""
    bearer_path: str = ""
    refresh_seconds: int = 300
    stale_seconds_max: int = 24 * 3600


@dataclass(frozen=True, slots=True)
class LabelRule:
    """One label: a fixed value, or the text found at a path of claim names. Exactly one of the two is set."""

    name: str
    fixed: str = ""
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IssuerRule:
    """What is demanded of one issuer's tokens.

    Args:
        name: of the rule, for logs and audit.
        issuer: the exact `iss`. For kind "spiffe" the trust domain as `spiffe://<trust domain>`, matched against `sub`.
        kind: shape of the tokens.
        audience: the one audience; a token with any other, or with more than this one, is refused.
        algorithms: allowed `alg` values, asymmetric only.
        keys: where the public keys come from.
        lifetime_seconds_max: longest life of a token, whatever its `exp` says.
        leeway_seconds: for clocks that differ; only when verifying.
        token_types: allowed `typ`, lower case, without "application/"; `NO_TYPE` allows its absence.
        subject_path: claim that names the caller; anything but `sub` is for kind "oidc" only.
        labels: how labels follow from claims; without an "environment" no key can be leased.
        jwt_issuer: for kind "spiffe": the exact `iss` where tokens carry one; empty: they must carry none.
        replay: what is done about tokens presented again.
        proof: of possession of a key; demanded of every token of this issuer unless it is NONE.
        peer_uids: when not empty, only peers with one of these uids may present this issuer's tokens.
    """

    name: str
    issuer: str
    kind: IssuerKind
    audience: str
    algorithms: frozenset[str]
    keys: KeySource
    lifetime_seconds_max: int = 3600
    leeway_seconds: int = 30
    token_types: frozenset[str] = frozenset({"jwt", NO_TYPE})
    subject_path: tuple[str, ...] = ("sub",)
    labels: tuple[LabelRule, ...] = ()
    jwt_issuer: str = ""
    replay: Replay = Replay.OFF
    proof: Proof = Proof.NONE
    peer_uids: frozenset[int] = field(default=frozenset())

    @property
    def trust_domain(self) -> str:
        """The trust domain of kind "spiffe"; empty otherwise."""
        return trust_domain_of(self.issuer) if self.kind is IssuerKind.SPIFFE else ""

    @property
    def key_uses(self) -> frozenset[str]:
        """Values of a JWK's `use` that may verify this issuer's tokens; "" stands for none (SPIFFE demands one)."""
        if self.kind is not IssuerKind.SPIFFE:
            return frozenset({"sig", ""})
        return frozenset({"wit-svid" if self.proof is Proof.WIT else "jwt-svid"})

    @property
    def types_accepted(self) -> frozenset[str]:
        """Values of the header's `typ`: `token_types`, but for workload identity tokens theirs alone."""
        return frozenset({WIT_TYPE}) if self.proof is Proof.WIT else self.token_types


def claim_at(claims: Mapping[str, object], path: Sequence[str]) -> object:
    """The value at a path of claim names; None when any step is missing. Names may contain dots: the path is a list."""
    value: object = claims
    for step in path:
        if not isinstance(value, Mapping) or step not in value:
            return None
        value = value[step]
    return value


class IssuerRules:
    """All rules, looked up by what an unverified token says of itself."""

    def __init__(self, rules: Iterable[IssuerRule]) -> None:
        """Take the rules.

        Raises:
            ValueError: a rule is wrong, or two rules could answer for the same issuer; the message lists everything.
        """
        self.rules = tuple(rules)
        wrong = [f"issuer {rule.name!r}: {text}" for rule in self.rules for text in rule_wrong(rule)]
        for what, values in (
            ("name", [rule.name for rule in self.rules]),
            ("issuer", [issuer for rule in self.rules for issuer in {rule.issuer, rule.jwt_issuer} - {""}]),
        ):
            wrong += [f"two issuers have the same {what} {value!r}" for value in _repeated(values)]
        if wrong:
            raise ValueError("; ".join(wrong))
        self._by_issuer = {rule.issuer: rule for rule in self.rules if rule.kind is not IssuerKind.SPIFFE}
        self._by_trust_domain = {rule.trust_domain: rule for rule in self.rules if rule.kind is IssuerKind.SPIFFE}

    def choose(self, unverified_issuer: object, unverified_subject: object) -> IssuerRule | None:
        """The rule to verify a token by, from its own unverified words; None when no rule would believe it."""
        if isinstance(unverified_issuer, str) and unverified_issuer in self._by_issuer:
            return self._by_issuer[unverified_issuer]
        if not isinstance(unverified_subject, str):
            return None
        rule = self._by_trust_domain.get(trust_domain_of(unverified_subject))
        if rule is None or unverified_issuer != (rule.jwt_issuer or None):
            return None
        return rule


def rule_wrong(rule: IssuerRule) -> list[str]:
    """Everything that is wrong with one rule, each in words; empty when it holds."""
    wrong = _identity_wrong(rule) + source_wrong(rule.keys)
    allowed = SPIFFE_ALGORITHMS if rule.kind is IssuerKind.SPIFFE else ASYMMETRIC_ALGORITHMS
    if not rule.algorithms:
        wrong.append("algorithms must name at least one")
    wrong += [
        f"algorithm {name!r} is not allowed; allowed: {', '.join(sorted(allowed))}"
        for name in sorted(rule.algorithms - allowed)
    ]
    if not 1 <= rule.lifetime_seconds_max <= LIFETIME_SECONDS_MAX:
        wrong.append(f"lifetime_seconds_max must be 1 to {LIFETIME_SECONDS_MAX}, was {rule.lifetime_seconds_max}")
    if not 0 <= rule.leeway_seconds <= LEEWAY_SECONDS_MAX:
        wrong.append(f"leeway_seconds must be 0 to {LEEWAY_SECONDS_MAX}, was {rule.leeway_seconds}")
    if not rule.token_types or any(kind != kind.lower() for kind in rule.token_types):
        wrong.append("token_types must name at least one type, in lower case")
    if WIT_TYPE in rule.token_types:
        wrong.append(f'{WIT_TYPE} tokens are never bearer tokens; use proof = "wit" instead of token_types')
    if any(uid < 0 for uid in rule.peer_uids):
        wrong.append("peer_uids must not be negative")
    return wrong + _labels_wrong(rule.labels)


def _identity_wrong(rule: IssuerRule) -> list[str]:
    wrong: list[str] = []
    texts = [("name", rule.name), ("issuer", rule.issuer), ("audience", rule.audience)]
    wrong += [
        f"{what} must be 1 to {TEXT_CHARACTERS_MAX} printable characters" for what, text in texts if not _is_text(text)
    ]
    if rule.kind is IssuerKind.SPIFFE:
        domain_wrong = trust_domain_wrong(rule.trust_domain)
        if domain_wrong is not None or rule.issuer != f"spiffe://{rule.trust_domain}":
            wrong.append(f"issuer must be spiffe://<trust domain> for kind spiffe, was {rule.issuer!r}")
    elif rule.jwt_issuer:
        wrong.append("jwt_issuer is for kind spiffe only; use issuer")
    if rule.subject_path != ("sub",) and (rule.kind is not IssuerKind.OIDC or not all(rule.subject_path)):
        wrong.append("subject_path may differ from ['sub'] for kind oidc only, and must name claims")
    if not rule.subject_path:
        wrong.append("subject_path must name at least one claim")
    return wrong


def _labels_wrong(labels: Sequence[LabelRule]) -> list[str]:
    wrong = [f"label {name!r} is set twice" for name in _repeated([label.name for label in labels])]
    if len(labels) > LABELS_MAX:
        wrong.append(f"at most {LABELS_MAX} labels, was {len(labels)}")
    for label in labels:
        if not _is_text(label.name) or len(label.name) > LABEL_NAME_CHARACTERS_MAX:
            wrong.append(f"label name {label.name!r} must be 1 to {LABEL_NAME_CHARACTERS_MAX} printable characters")
        if bool(label.fixed) == bool(label.path):
            wrong.append(f"label {label.name!r} needs either a fixed value or a claim path")
        if label.fixed and not _is_text(label.fixed):
            wrong.append(f"label {label.name!r} must be printable text")
    return wrong


def source_wrong(source: KeySource) -> list[str]:
    """Everything that is wrong with a source of keys, each in words; empty when it holds."""
    wrong: list[str] = []
    if bool(source.url) == bool(source.path):
        wrong.append("keys need exactly one of a JWKS url and a JWKS path")
    if source.url:
        url_error = url_wrong(source.url)
        if url_error is not None:
            wrong.append(url_error)
        elif source.bearer_path and not source.url.startswith("https://"):
            wrong.append("bearer_path needs an https url: the token would travel in the clear")
    elif source.ca_path or source.bearer_path:
        wrong.append("ca_path and bearer_path belong to a url")
    if not 10 <= source.refresh_seconds <= 86_400:
        wrong.append(f"refresh_seconds must be 10 to 86400, was {source.refresh_seconds}")
    if source.stale_seconds_max < source.refresh_seconds:
        wrong.append("stale_seconds_max must not be below refresh_seconds")
    return wrong


def url_wrong(url: str) -> str | None:
    """What is wrong with the address of a key set, in words; None when it holds."""
    why = http_url_wrong(url)
    if why is not None:
        return f"the url {shown(url)} {why}"
    if in_the_clear(url):
        return f"the url {url!r} must be https (http is for loopback addresses only)"
    return None


def _is_text(text: str) -> bool:
    return 0 < len(text) <= TEXT_CHARACTERS_MAX and text.isprintable() and text == text.strip()


def _repeated(values: Sequence[str]) -> list[str]:
    return sorted({value for value in values if values.count(value) > 1})
