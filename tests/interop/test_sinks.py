"""What sinks send, read by the programs that it is for: the OpenTelemetry Collector's own reader, and rsyslog."""

import asyncio
import contextlib
import json
import shutil
import subprocess

import pytest
from tests.fakes.centre import eventually
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.sinks import Format, SyslogSink, SyslogTarget, Transport
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.wire.otlp_logs import otlp_logs

RSYSLOG = """
global(workDirectory="{folder}" maxMessageSize="256k" parser.escapeControlCharactersOnReceive="off")
module(load="imtcp" maxSessions="10")
module(load="mmpstrucdata")
input(type="imtcp" port="0" address="127.0.0.1" listenPortFileName="{folder}/port" maxFrameSize="250000")
template(name="all" type="list" option.jsonf="on") {{
  property(outname="facility" name="syslogfacility" format="jsonf")
  property(outname="severity" name="syslogseverity" format="jsonf")
  property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="process" name="procid" format="jsonf")
  property(outname="message_id" name="msgid" format="jsonf")
  property(outname="data" name="$!rfc5424-sd" format="jsonf")
  property(outname="text" name="msg" format="jsonf")
}}
action(type="mmpstrucdata")
action(type="omfile" file="{folder}/out" template="all")
"""


def odd_records():
    """Events whose content belongs to somebody else's grammar, and one that is long."""
    emitter = Emitter('a"]\\b \u00e9', "e1")
    bodies = [
        {"type": "x y\nz", "note": '\n<34>1 - - - - - - forged\0\x1b[2J\ufeff]"'},
        {"type": "t" * 60, "note": "\u2028\U0001f600"},
        {"type": "call.settled", "note": "n" * 100_000, "details": {"big": 2**63 - 1}},
    ]
    common = {"outcome": "denied", "wall_ms": 1_700_000_000_123, "lease": "leases/a"}
    encoded = [json.dumps({**common, **body}, sort_keys=True, separators=(",", ":")).encode() for body in bodies]
    return [StoredRecord(position, 7, emitter.put(body)) for position, body in enumerate(encoded, start=1)]


def test_otlp_is_what_the_collector_reads(outsider):
    """Every field comes back from the OpenTelemetry Collector's own reader as it was meant."""
    records = odd_records()
    done = subprocess.run([outsider, "otlp"], input=otlp_logs(records, "centre"), capture_output=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["body"].encode() for one in found] == [stored.record.body for stored in records]
    assert {(one["service"], one["severity"], one["time"]) for one in found} == {
        ("centre", "Warn", "2023-11-14T22:13:20.123Z")
    }
    assert [one["event"] for one in found] == [f"leasehold.{kind}" for kind in ("x y\nz", "t" * 60, "call.settled")]
    assert [one["attributes"]["leasehold.position"] for one in found] == [1, 2, 3]
    assert found[0]["attributes"]["leasehold.stream"] == 'a"]\\b \u00e9'


@contextlib.asynccontextmanager
async def rsyslog(folder):
    """It, as a process of its own; gives its port."""
    program = shutil.which("rsyslogd")
    if program is None:
        pytest.skip("there is no rsyslogd here (apt-get install rsyslog)")
    (folder / "conf").write_text(RSYSLOG.format(folder=folder))
    process = await asyncio.create_subprocess_exec(
        program, "-n", "-C", "-f", folder / "conf", "-i", folder / "pid", stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await eventually(lambda: (folder / "port").exists() and (folder / "port").read_text().strip())
        yield int((folder / "port").read_text())
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize("form", list(Format))
async def test_syslog_is_what_rsyslog_reads(tmp_path, form):
    """Each event is one message with its own header, structured data and text, whatever it holds."""
    records = odd_records()
    async with asyncio.timeout(120), rsyslog(tmp_path) as port:
        sink = SyslogSink(SyslogTarget(Transport.TCP, "127.0.0.1", port), form, "host one")
        await sink.deliver(records)
        out = tmp_path / "out"
        await eventually(lambda: out.exists() and out.read_bytes().count(b"\n") >= len(records))
        await sink.close()
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(found) == len(records)
    for one, stored in zip(found, records, strict=True):
        assert (one["facility"], one["severity"], one["app"], one["host"]) == ("13", "4", "leasehold", "host?one")
        assert one["time"] == "2023-11-14T22:13:20.123Z"
        [(_, data)] = json.loads(one["data"]).items() if isinstance(one["data"], str) else one["data"].items()
        assert (data["position"], data["stream"], data["epoch"]) == (str(stored.position), stored.record.stream, "e1")
        assert data["digest"] == stored.record.digest.hex()
        text = json.loads(one["text"])
        if form is Format.LEASEHOLD:
            assert text["event"] == json.loads(stored.record.body)
        else:
            assert text["metadata"]["uid"].endswith(f"/e1/{stored.position}")
    assert [one["message_id"] for one in found] == ["x?y?z", "t" * 32, "call.settled"]
    assert {one["process"] for one in found} == {'a"]\\b??'}
