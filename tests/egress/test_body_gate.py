"""The JSON body gate: one object, one meaning."""

import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.egress.body_gate import DEPTH_MAX, check_media, parse_object

REFUSED = {
    "empty": b"",
    "space": b"  ",
    "array": b"[]",
    "string": b'"a"',
    "null": b"null",
    "equal keys": b'{"a":1,"a":1}',
    "equal keys by escape": b'{"a":1,"\\u0061":1}',
    "equal keys deep": b'{"x":[{"y":{"a":1,"b":2,"a":3}}]}',
    "empty keys twice": b'{"":1,"":2}',
    "trailing data": b"{} {}",
    "trailing comma": b'{"a":1,}',
    "trailing NUL": b"{}\0",
    "comment": b"{}//x",
    "single quotes": b"{'a':1}",
    "byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"a":1}'.encode("utf-16"),
    "utf-32": '{"a":1}'.encode("utf-32-le"),
    "bad utf-8": b'{"a":"\xff"}',
    "overlong utf-8": b'{"a":"\xc0\xaf"}',
    "surrogate in utf-8": b'{"a":"\xed\xa0\x80"}',
    "lone high surrogate": b'{"a":"\\ud800"}',
    "lone low surrogate": b'{"a":"x\\uDC00"}',
    "swapped surrogates": b'{"a":"\\udc00\\ud800"}',
    "lone surrogate as key": b'{"\\ud800":1}',
    "control character": b'{"a":"\n"}',
    "NUL in string": b'{"a":"\0"}',
    "bad escape": b'{"a":"\\x"}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":[-Infinity]}',
    "float beyond": b'{"a":1e400}',
    "negative float beyond": b'{"a":-1e400}',
    "long integer": b'{"a":' + b"9" * 21 + b"}",
    "very long integer": b'{"a":' + b"9" * 10000 + b"}",
    "long float": b'{"a":0.' + b"1" * 70 + b"}",
    "leading zero": b'{"a":01}',
    "plus": b'{"a":+1}',
    "hex": b'{"a":0x1}',
    "bare point": b'{"a":.5}',
    "point at the end": b'{"a":5.}',
    "deep arrays": b'{"a":' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"}",
    "deep objects": b'{"a":' * (DEPTH_MAX + 1) + b"1" + b"}" * (DEPTH_MAX + 1),
    "depth bomb": b'{"a":' + b"[" * 200_000,
    "too many numbers": b'{"a":[' + b"0," * 400_000 + b"0]}",
    "too many fractions": b'{"a":[' + b"0.5," * 60_000 + b"0]}",
    "too many exponents": b'{"a":[' + b"1e9," * 60_000 + b"0]}",
    "too many words": b'{"a":[' + b"null," * 60_000 + b"0]}",
    "too many strings": b'{"a":[' + b'"",' * 60_000 + b"0]}",
    "too many strings with quotes": b'{"a":[' + b'"\\\\\\"",' * 60_000 + b"0]}",
    "too many members": b"{" + b",".join(b'"%d":0' % number for number in range(60_000)) + b"}",
    "too many brackets": b'{"a":[' + b"[]," * 150_000 + b"[]]}",
    "form feed": b"\x0c{}",
    "no-break space": b"\xc2\xa0{}",
    "unclosed": b'{"a":1',
    "value missing": b'{"a"}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_single_meaning_is_refused(name):
    """Each body that some parser reads differently, or none should, is refused without being quoted."""
    with pytest.raises(Refusal) as refused:
        parse_object(REFUSED[name])
    assert Reason.BODY_INVALID is refused.value.reason
    assert len(refused.value.message) < 200


def test_depth_up_to_the_bound_is_taken():
    """Exactly the bound passes, whatever brackets are inside strings."""
    body = b'{"a":' + b"[" * (DEPTH_MAX - 1) + b'"' + b"[{" * 500 + b'\\""' + b"]" * (DEPTH_MAX - 1) + b"}"
    assert "a" in parse_object(body)


def test_many_token_numbers_are_taken():
    """As many numbers as a vendor takes in one embedding."""
    assert len(parse_object(b'{"input":[' + b"17," * 299_999 + b"0]}")["input"]) == 300_000


def test_what_is_inside_of_strings_is_not_counted():
    """A long text may hold any number of commas, brackets, quotes and backslashes."""
    text = '{"a":[1.5e3,"\\\\"],' * 100_000
    assert {"a": text} == parse_object(json.dumps({"a": text}).encode())


def test_no_body_takes_long():
    """Full-sized bodies of whatever is slowest are refused or read in a fraction of a second (they took two)."""
    size = 8 * 1024 * 1024
    began = time.thread_time()
    for unit in (b"0,", b"1e9,", b'"",', b"{},", b"[[]],", b'{"a":0},'):
        with pytest.raises(Refusal):
            parse_object(b'{"a":[' + unit * (size // len(unit) - 8) + b"0]}")
    assert time.thread_time() - began < 6.0  # of this thread alone: what else the machine does is not counted


def test_good_text_is_taken():
    """Surrogate pairs, every plane, white space and large floats within range are taken as they are."""
    body = ' \r\n\t{"a": "\\ud83d\\ude00 é 😀 \\u0000", "b": [1e308, -0, 1.5E-3, 12345678901234567890]} '.encode()
    assert parse_object(body) == {"a": "😀 é 😀 \0", "b": [1e308, 0, 0.0015, 12345678901234567890]}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values), st.booleans())
def test_every_good_object_survives(value, ascii_only):
    """What a client means is what the gate returns, and what another parser reads from the re-serialisation."""
    parsed = parse_object(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
    assert value == parsed
    assert value == msgspec.json.decode(msgspec.json.encode(parsed))


@given(st.binary(max_size=64))
def test_any_bytes_are_answered(data):
    """Any bytes give an object or a refusal, never another exception; what passes also passes a second parser."""
    for body in (data, b'{"a":' + data + b"}"):
        try:
            parsed = parse_object(body)
        except Refusal:
            continue
        assert msgspec.json.decode(body) == parsed


@pytest.mark.parametrize(
    "media",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_plain_json_is_taken(media):
    """JSON in UTF-8 is the one media type."""
    assert None is check_media({"content-type": media})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/json"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json; boundary=x"},
        {"content-type": "application/json, text/plain"},
        {"content-type": "application/jsonp"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json", "content-encoding": "identity"},
    ],
)
def test_other_media_are_refused(headers):
    """Every other type, charset, parameter or coding is refused."""
    with pytest.raises(Refusal) as refused:
        check_media(headers)
    assert Reason.CONTENT_TYPE_NOT_ALLOWED is refused.value.reason
