"""Fuzz targets for what stands in front of every parser: token gate, key sets, body gate.

A target takes bytes and returns; any exception is a finding. None of them knows who makes the bytes.
"""

# ruff: noqa: PT017 - a refusal is one of the good answers here, not the expected one

import base64
import json
import re

import jwt
import msgspec

from leasehold_broker.adapters.jwk_set import KeySetRefusedError, read_key_set
from leasehold_broker.adapters.jwt_gate import TOKEN_CHARACTERS_MAX, UnverifiedToken, read_token
from leasehold_broker.adapters.strict_json import NotStrictJsonError, read_object
from leasehold_broker.domain.issuer import IssuerKind, IssuerRule, IssuerRules, KeySource, LabelRule
from leasehold_broker.domain.reasons import IDENTITY_REASONS, Reason, Refusal
from leasehold_broker.domain.time import Instant
from leasehold_broker.domain.workload_claims import identity_from_claims
from leasehold_broker.egress.body_gate import parse_object
from leasehold_broker.providers.bounds import canonical

NOW = Instant(wall_ms=1_790_000_000_000, boot_ns=5_000_000_000_000)
NOT_STRICT = "strict JSON refused what the body gate took"
_STRICT_DEPTH = re.compile(r"nested deeper")


def _rule(name: str, issuer: str, kind: IssuerKind, path: tuple[str, ...]) -> IssuerRule:
    return IssuerRule(
        name=name,
        issuer=issuer,
        kind=kind,
        audience="leasehold",
        algorithms=frozenset({"RS256", "ES256"}),
        keys=KeySource(url="https://keys.example/jwks"),
        labels=(LabelRule("environment", path=path),),
    )


RULES = IssuerRules(
    (
        _rule("oidc", "https://issuer.example", IssuerKind.OIDC, ("env",)),
        _rule("cluster", "https://k8s.example", IssuerKind.KUBERNETES, ("kubernetes.io", "namespace")),
        _rule("mesh", "spiffe://example.org", IssuerKind.SPIFFE, ("env",)),
    )
)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _token(text: str) -> UnverifiedToken | None:
    try:
        return read_token(text)
    except Refusal as refusal:
        assert refusal.reason in IDENTITY_REASONS, refusal.reason
        assert len(text) < 24 or text not in repr(refusal)
        return None


def _identity(token: UnverifiedToken) -> None:
    rule = RULES.choose(token.claims.get("iss"), token.claims.get("sub"))
    if rule is None:
        return
    try:
        identity = identity_from_claims(rule, token.claims, NOW)
    except Refusal as refusal:
        assert refusal.reason in IDENTITY_REASONS, refusal.reason
        return
    subject = identity.subject
    assert subject.issuer == rule.issuer
    assert subject.subject.isascii()
    assert subject.subject.isprintable()
    assert all(value.isprintable() for value in subject.labels.values())
    assert NOW.wall_ms < identity.expires_wall_ms + rule.leeway_seconds * 1000


def token_gate(data: bytes) -> None:
    """A text gives one token whose parts encode to it again and that PyJWT reads alike, or an identity refusal.

    An odd first byte: the rest is the text. Otherwise header, payload and signature, parted by a NUL, are encoded.
    """
    if data[:1] and data[0] & 1:
        text = data[1:].decode("utf-8", "replace")
    else:
        text = ".".join(_b64(part) for part in data[1:].split(b"\0", 2))
    token = _token(text)
    if token is None:
        return
    assert len(text) <= TOKEN_CHARACTERS_MAX
    assert f"{token.signed.decode()}.{_b64(token.signature)}" == text
    header, payload = (base64.urlsafe_b64decode(part + "==") for part in text.split(".")[:2])
    assert f"{_b64(header)}.{_b64(payload)}".encode() == token.signed
    assert json.loads(payload) == token.claims
    assert msgspec.json.decode(header)["alg"] == token.algorithm
    try:
        seen = jwt.api_jws.PyJWS().decode_complete(text, options={"verify_signature": False})
    except jwt.exceptions.DecodeError:
        seen = None  # it refuses more than we do in some places; it must not see something else
    assert seen is None or (seen["payload"], seen["signature"]) == (payload, token.signature)
    _identity(token)


def key_set(data: bytes) -> None:
    """A document gives a set of public keys that may verify, or is refused in words that do not quote it."""
    try:
        keys = read_key_set(data, frozenset({"", "sig"}))
    except KeySetRefusedError as error:
        assert len(str(error)) < 2000
        return
    assert keys.keys
    members = json.loads(data)["keys"]
    assert len(keys.keys) + len(keys.left_out) == len(members)
    for key in keys.keys:
        assert key.algorithms
        assert not key.verifies("none", b"x", b"")
        assert not any(key.verifies(name, b"x", b"y" * 64) for name in key.algorithms)


def body_gate(data: bytes) -> None:
    """A body gives the object that every other parser reads in it, and is written anew to the same meaning."""
    try:
        parsed = parse_object(data)
    except Refusal as refusal:
        assert refusal.reason is Reason.BODY_INVALID
        assert len(refusal.message) < 200
        return
    anew = canonical(parsed)
    assert canonical(json.loads(data)) == anew
    assert canonical(msgspec.json.decode(data)) == anew
    assert canonical(json.loads(anew)) == anew
    assert canonical(parse_object(anew)) == anew
    if data.startswith(b"{"):
        _strict_agrees(data, parsed)


def _strict_agrees(data: bytes, parsed: object) -> None:
    try:
        assert read_object(data) == parsed
    except NotStrictJsonError as error:
        assert _STRICT_DEPTH.match(str(error)), NOT_STRICT
