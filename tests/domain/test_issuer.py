"""Issuer rules: what is refused when they are read, which one speaks for a token, and the replay table's bounds."""

from dataclasses import replace

import pytest
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.domain.issuer import (
    IssuerKind,
    IssuerRule,
    IssuerRules,
    KeySource,
    LabelRule,
    claim_at,
    rule_wrong,
)
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.replay import NOBODY, Showings
from leasehold_broker.domain.spiffe import spiffe_id_wrong

RULE = IssuerRule(
    "oidc",
    "https://a.example",
    IssuerKind.OIDC,
    "leasehold",
    frozenset({"RS256"}),
    KeySource(url="https://a.example/k"),
)
MESH = replace(RULE, name="mesh", issuer="spiffe://example.org", kind=IssuerKind.SPIFFE)


def test_good_rules():
    """Rules as in the examples have nothing wrong with them."""
    assert rule_wrong(RULE) == []
    assert rule_wrong(MESH) == []


@pytest.mark.parametrize(
    ("rule", "changes", "expected"),
    [
        (RULE, {"algorithms": frozenset()}, "algorithms must name at least one"),
        (RULE, {"algorithms": frozenset({"HS256"})}, "algorithm 'HS256' is not allowed"),
        (RULE, {"algorithms": frozenset({"none"})}, "algorithm 'none' is not allowed"),
        (MESH, {"algorithms": frozenset({"EdDSA"})}, "algorithm 'EdDSA' is not allowed"),
        (RULE, {"audience": ""}, "audience must be"),
        (RULE, {"token_types": frozenset({"wit+jwt"})}, "wit+jwt tokens are never bearer tokens"),
        (RULE, {"lifetime_seconds_max": 0}, "lifetime_seconds_max must be"),
        (RULE, {"lifetime_seconds_max": 10**9}, "lifetime_seconds_max must be"),
        (RULE, {"leeway_seconds": 61}, "leeway_seconds must be 0 to 60"),
        (RULE, {"leeway_seconds": -1}, "leeway_seconds must be 0 to 60"),
        (RULE, {"token_types": frozenset()}, "token_types"),
        (RULE, {"token_types": frozenset({"JWT"})}, "token_types"),
        (RULE, {"keys": KeySource()}, "exactly one of"),
        (RULE, {"keys": KeySource(url="https://a/k", path="/k")}, "exactly one of"),
        (RULE, {"keys": KeySource(path="/k", ca_path="/c")}, "belong to a url"),
        (RULE, {"keys": KeySource(path="/k", refresh_seconds=1)}, "refresh_seconds"),
        (RULE, {"keys": KeySource(path="/k", stale_seconds_max=1)}, "stale_seconds_max"),
        (RULE, {"jwt_issuer": "x"}, "jwt_issuer is for kind spiffe only"),
        (RULE, {"subject_path": ()}, "subject_path"),
        (MESH, {"subject_path": ("email",)}, "subject_path"),
        (MESH, {"issuer": "https://example.org"}, "issuer must be spiffe://"),
        (MESH, {"issuer": "spiffe://Example.org"}, "issuer must be spiffe://"),
        (MESH, {"issuer": "spiffe://example.org/a"}, "issuer must be spiffe://"),
        (RULE, {"peer_uids": frozenset({-1})}, "peer_uids"),
        (RULE, {"labels": (LabelRule("environment"),)}, "either a fixed value or a claim path"),
        (RULE, {"labels": (LabelRule("a", "x", ("y",)),)}, "either a fixed value or a claim path"),
        (RULE, {"labels": (LabelRule("a", "x"), LabelRule("a", "y"))}, "set twice"),
    ],
)
def test_rules_that_are_refused(rule, changes, expected):
    """Each unsafe or contradictory setting is named."""
    assert any(expected in text for text in rule_wrong(replace(rule, **changes)))


def test_rules_that_could_answer_for_each_other():
    """No two rules share a name, an issuer or the issuer name within SVIDs."""
    for other in (replace(RULE, issuer="https://b.example"), replace(RULE, name="b")):
        with pytest.raises(ValueError, match="two issuers have the same"):
            IssuerRules([RULE, other])
    with pytest.raises(ValueError, match="two issuers have the same issuer"):
        IssuerRules([RULE, replace(MESH, jwt_issuer=RULE.issuer)])


def test_claim_paths():
    """A path is a list of names, so names may contain dots; what is missing is None."""
    claims = {"kubernetes.io": {"namespace": "a"}, "x": ["y"]}
    assert claim_at(claims, ("kubernetes.io", "namespace")) == "a"
    assert claim_at(claims, ("kubernetes", "io")) is None
    assert claim_at(claims, ("x", "y")) is None


@pytest.mark.parametrize("good", ["spiffe://a/b", "spiffe://a.b-c_d9/A/b.c/-_/...", "spiffe://" + "a" * 255 + "/b"])
def test_spiffe_ids(good):
    """IDs by the letter hold."""
    assert spiffe_id_wrong(good) is None


@pytest.mark.parametrize(
    "bad", ["", "spiffe://", "spiffe:///a", "spiffe://a", "spiffe://" + "a" * 256 + "/b", "x://a/b"]
)
def test_no_spiffe_ids(bad):
    """Everything else is refused, not mended."""
    assert spiffe_id_wrong(bad) is not None


def test_replay_table_is_bounded():
    """A full table refuses new ids rather than forget live ones; expired ones make room."""
    clock, table = ManualClock(), Showings("t", entries_max=2)
    for number in range(2):
        table.claim("token", f"t{number}", "uid:1", 60, clock.now())
    with pytest.raises(Refusal) as caught:
        table.claim("token", "t2", "uid:1", 60, clock.now())
    assert caught.value.reason is Reason.IDENTITY_REJECTED
    assert table.claim("token", "t0", "uid:1", 60, clock.now()) is None
    clock.advance(65)
    table.claim("token", "t2", "uid:1", 60, clock.now())
    assert len(table) == 1


@pytest.mark.parametrize("holder", [NOBODY, "uid:1"])
def test_what_was_shown_is_remembered_by_the_next_life(holder):
    """What a claim gave is all the next life needs to refuse, until it has run out."""
    clock, table, next_life = ManualClock(), Showings("t"), Showings("t")
    showing = table.claim("proof key", "p1", holder, 60, clock.now())
    next_life.restore([showing, replace(showing, table="other", key="k")], clock.now())
    assert len(next_life) == 1
    with pytest.raises(Refusal) as caught:
        next_life.claim("proof key", "p1", "uid:2", 60, clock.now())
    assert caught.value.reason is Reason.REPLAY_DETECTED
    assert next_life.claim("proof other key", "p1", "uid:2", 60, clock.now()) is not None
    clock.advance(66)
    assert next_life.claim("proof key", "p1", "uid:2", 60, clock.now()) is not None


def test_a_claim_taken_back_leaves_nothing_that_could_end_the_next_one():
    """An id that could not be made durable is free again, and its new claim lasts its own time."""
    clock, table = ManualClock(), Showings("t")
    table.forget(table.claim("token", "t0", NOBODY, 10, clock.now()))
    table.claim("token", "t0", NOBODY, 60, clock.now())
    clock.advance(30)
    with pytest.raises(Refusal) as caught:
        table.claim("token", "t0", NOBODY, 30, clock.now())
    assert caught.value.reason is Reason.REPLAY_DETECTED


def test_what_is_not_durable_is_not_forgiven_a_missing_id():
    """Under a replay policy an empty id is refused."""
    with pytest.raises(Refusal) as caught:
        Showings("t").claim("token", "", NOBODY, 30, ManualClock().now())
    assert caught.value.reason is Reason.CLAIM_REJECTED
