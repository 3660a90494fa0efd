"""Bodies that a sidecar in other hands writes: refused, or every export of the log goes on behind them."""

import contextlib
import json

import msgspec
import pytest
from tests.fakes.streams import Emitter

from leasehold.audit import Record
from leasehold.cli.audit_commands import print_record
from leasehold.spend import GROUPS, spent_by
from leasehold_broker.adapters.sinks.encoding import Format, encode
from leasehold_broker.domain.alerts import alert_of
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.domain.baselines import AnomalyRules, Baseline, from_row, to_row
from leasehold_broker.wire.alert_bodies import pagerduty_body, slack_body, webhook_body
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


ODD = [
    body(b'"x":1e999'),
    body(b'"x":-1e999'),
    body(b'"x":' + b"9" * 60_000),
    body(b'"x":"' + b"[{" * 1000 + b'\\\\"'),
    body(nested(31)),
    body(b'"details":{"expire_wall_ms":' + b"9" * 5000 + b"}"),
    body(b'"reason":{"a":1},"request_id":[],"details":{"message":5}'),
    body(b'"type":"lease.acquired","details":{"scopes":[{"key":"a","provider":{}}]}'),
    body(b'"lease":"\\u0000\\n","subject":null'),
    body(b'"wall_ms":9007199254740992'),
    body(b'"type":"call.settled","details":{"call":{},"charged":{"cost_micro_usd":"9","input_tokens":null}}'),
    body(b'"details":{"held":{"cost_micro_usd":' + b"9" * 4300 + b"}}"),
]

NEVER_TAKEN = [
    body(b'"type":"call.settled","details":[]'),
    body(b'"type":"call.settled","details":{"charged":[1],"selector":3},"subject":{"subject":[]}'),
    body(nested(5_000)),
    b"[]",
    b"",
    b"\xff",
]
"""By our log; another may give them out all the same."""


@pytest.mark.parametrize("odd", ODD)
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


@pytest.mark.parametrize("wall_ms", [0, 1_764_000_000_123, 253_402_300_799_999, 253_402_300_800_000, 2**53])
def test_no_time_of_an_event_silences_the_alerts(wall_ms):
    """An alert that could not be written would be tried for ever, before all that come behind it."""
    event = b'{"outcome":"failed","type":"key.taken_out","wall_ms":%d,"details":{"key":"prod"}}' % wall_ms
    checked_columns([event])
    alert = alert_of(decode_event(event), "sidecar-a", "sidecar-a/e/1")
    said = {
        0: "1970-01-01T00:00:00.000Z",
        1_764_000_000_123: "2025-11-24T16:00:00.123Z",
    }.get(wall_ms, "9999-12-31T23:59:59.999Z")
    for written in (slack_body(alert, "c"), pagerduty_body(alert, "c", "k"), webhook_body(alert, "c")):
        assert said.encode() in written


@pytest.mark.parametrize(
    "more",
    [
        b'"type":"call.settled","details":{"charged":{"cost_micro_usd":%b}}' % (b"9" * 4300),
        b'"type":"call.refused","details":{"count":%b}' % (b"9" * 4300),
    ],
)
def test_no_amount_of_an_event_ends_the_search_for_anomalies(more):
    """What is counted of a subject can always be kept, and read again, however large a sidecar says that it is."""
    hostile = body(b'"subject":{"issuer":"i","subject":"s"},' + more)
    checked_columns([hostile])
    baseline = Baseline()
    for hour in range(3):
        for _ in range(3):
            baseline.take(decode_event(hostile), hour * 3_600_000, AnomalyRules())
    assert from_row(msgspec.json.decode(msgspec.json.encode(to_row(baseline)))) == baseline


@pytest.mark.parametrize("odd", [*ODD, *NEVER_TAKEN])
def test_no_event_ends_what_an_operator_reads(odd, capsys):
    """The command prints each event in one line and sums the rest, whoever wrote them."""
    record = Record(7, "sidecar-a", "e1", 1, b"", b"", odd)
    for json_ in (False, True):
        print_record(record, json_=json_)
        assert capsys.readouterr().out.count("\n") == 1
    good = b'{"type":"call.settled","wall_ms":0,"details":{"call":"1","charged":{"cost_micro_usd":5}}}'
    log = [record, Record(8, "sidecar-a", "e1", 2, b"", b"", good)]
    assert sum(one.cost_micro_usd for one in spent_by(log, GROUPS).values()) == 5
