"""Bodies that a sidecar in other hands writes: refused, or every export of the log goes on behind them."""

import contextlib
import json

import pytest
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.sinks.encoding import Format, encode
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.wire.event_body import checked_columns, decode_event
from leasehold_broker.wire.otlp_logs import otlp_logs
from leasehold_broker.wire.syslog import syslog_message

EVENT = b'"outcome":"denied","type":"call.refused","wall_ms":1'


def body(more):
    """An event with one more member."""
    return b"{%b,%b}" % (EVENT, more)


def nested(depth):
    """An array in an array, so deep."""
    return b'"x":' + b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "hostile",
    [
        body(b'\n"x":\n{"position":1,"stream":"another","event":{}}\n'),
        body(b'\r"x":1'),
        body(nested(32)),
        body(nested(20_000)),
        body(b'"details":{"x":' + b'{"y":' * 40 + b"1" + b"}" * 40 + b"}"),
        body(b'"x":NaN'),
        body(b'"x":"\\ud800"'),
        body(b'"x":"\xff"'),
        b"[]",
        b"",
    ],
)
def test_what_would_harm_a_reader_is_not_taken(hostile):
    """A line break could forge a record in a file of lines, and depth could end whoever reads: both are refused."""
    with pytest.raises(ValueError):  # noqa: PT011 - any sentence: the sidecar that wrote it is told, nobody else
        checked_columns([hostile])


@pytest.mark.parametrize(
    "odd",
    [
        body(b'"x":1e999'),
        body(b'"x":-1e999'),
        body(b'"x":' + b"9" * 60_000),
        body(b'"x":"' + b"[{" * 1000 + b'\\\\"'),
        body(nested(31)),
        body(b'"details":{"expire_wall_ms":' + b"9" * 5000 + b"}"),
        body(b'"reason":{"a":1},"request_id":[],"details":{"message":5}'),
        body(b'"type":"lease.acquired","details":{"scopes":[{"key":"a","provider":{}}]}'),
        body(b'"lease":"\\u0000\\n","subject":null'),
    ],
)
def test_what_is_taken_holds_up_no_export(odd):
    """Whatever else it says, each form takes it in one line, so that the events of others come through behind it."""
    checked_columns([odd])
    stored = StoredRecord(1, 7, Emitter().put(odd), "call.refused")
    for form in Format:
        line = encode(stored, form)
        assert b"\n" not in line
        assert json.loads(line, parse_int=len)
    assert otlp_logs([stored], "centre")
    assert syslog_message(stored, "host", b"")
    with contextlib.suppress(ValueError):
        decode_event(odd)
