"""The gate under arbitrary text: it answers with a well-formed token or a refusal, and never anything else."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.issuer import b64

from leasehold_broker.adapters.jwt_gate import read_token
from leasehold_broker.adapters.strict_json import DEPTH_MAX, NotStrictJsonError, read_object
from leasehold_broker.domain.reasons import IDENTITY_REASONS, Refusal

SEGMENTS = st.text("ABCDEFabcdef012345-_=+/. {}\u0435", max_size=60)
JSONISH = st.text('{}[]":,0123456789eE+-.truefalsn\\u d8\u00e9', max_size=60)


def answered(text):
    """The token that the gate makes of a text, or None for an identity refusal; anything else is an error."""
    try:
        return read_token(text)
    except Refusal as refusal:
        reason = refusal.reason
    assert reason in IDENTITY_REASONS
    return None


def deep(value):
    """How many lists and objects lie within each other."""
    if not isinstance(value, (dict, list)):
        return 0
    return 1 + max(map(deep, value.values() if isinstance(value, dict) else value), default=0)


@given(st.text(max_size=300))
def test_any_text(text):
    """Arbitrary text is answered."""
    answered(text)


@given(SEGMENTS, SEGMENTS, SEGMENTS)
def test_three_segments(header, payload, signature):
    """What is accepted has exactly one text: its parts encode to it again."""
    token = answered(f"{header}.{payload}.{signature}")
    if token is not None:
        assert token.signed.decode() == f"{header}.{payload}"
        assert b64(token.signature) == signature
        assert b64(base64.urlsafe_b64decode(payload + "==")) == payload


@given(JSONISH, JSONISH)
def test_any_json_like_members(header, payload):
    """Well-encoded segments with arbitrary content are answered."""
    answered(f"{b64(header.encode('utf-8', 'replace'))}.{b64(payload.encode('utf-8', 'replace'))}.AAAA")


@given(
    st.dictionaries(st.text(max_size=5), st.recursive(st.none() | st.integers(), st.lists, max_leaves=5), max_size=4)
)
def test_objects_come_back(value):
    """A strict object is read as what was written, unless it is too deep."""
    data = json.dumps(value, ensure_ascii=False).encode()
    if deep(value) > DEPTH_MAX:
        with pytest.raises(NotStrictJsonError, match="deep"):
            read_object(data)
    else:
        assert read_object(data) == value


@pytest.mark.parametrize("data", [b"{}", b'{"a":{"b":[1,2.5,"\xc3\xa9",null,true]}}', b'{"a":"\\ud83d\\ude00"}'])
def test_ordinary_objects(data):
    """Ordinary JSON is read, pairs of surrogates included."""
    assert isinstance(read_object(data), dict)
