"""Each kind of sink against a receiver that listens: what is sent, what counts as taken, and what does not."""

import asyncio
import contextlib
import json
import os
import re
import ssl
import subprocess
import sys
import threading

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.fakes.centre import eventually
from tests.fakes.certificates import Authority
from tests.fakes.loops import HUNG_UP
from tests.fakes.receivers import HttpReceiver, SyslogReceiver
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.sinks import (
    FileSink,
    Format,
    HttpTarget,
    OtlpSink,
    SyslogSink,
    SyslogTarget,
    Transport,
    WebhookSink,
)
from leasehold_broker.adapters.standard_webhooks import signature
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.ports.event_sink import SinkFailedError


def stored(count=3):
    """Records of a log."""
    return [StoredRecord(position, 7, record) for position, record in enumerate(Emitter().calls(count), start=1)]


@pytest.fixture
def receiver():
    """An HTTP receiver."""
    with HttpReceiver() as receiver:
        yield receiver


def webhook(url, **settings):
    """A webhook sink."""
    key = settings.pop("key_file", None)
    target = HttpTarget(url, **{"timeout_seconds": 60.0, **settings})
    return WebhookSink("hook", target, Format.LEASEHOLD, key, lambda: 17)


def test_the_signature_is_that_of_standard_webhooks(tmp_path):
    """The example of the specification, with its key, gives its signature."""
    import base64  # noqa: PLC0415 - of this test only

    key = base64.b64decode("plJ3nmyCDGBKInavdOK15jsl")
    body = b'{"event_type":"ping","data":{"success":true}}'
    made = signature(key, "msg_loFOjxBNrRLzqYUf", "1731705121", body)
    assert made == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


async def test_a_webhook_gets_an_array_signed_and_authorised(receiver, tmp_path):
    """Id, time, signature, token and the events with their places; a repeated batch has the same id."""
    for name, text in (("key", "whsec_cGFzc3dvcmQ=\n"), ("token", "t-1\n")):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(text)
    sink = webhook(receiver.url + "/in?x=1", key_file=tmp_path / "key", bearer_file=tmp_path / "token")
    await sink.deliver(stored())
    (tmp_path / "token").write_text("t-2\n")
    await sink.deliver(stored())
    await sink.close()
    (path, headers, body), (_, again, _) = receiver.requests
    assert path == "/in?x=1"
    assert (headers["authorization"], again["authorization"]) == ("Bearer t-1", "Bearer t-2")
    assert headers["webhook-id"] == again["webhook-id"]
    assert headers["webhook-signature"] == signature(b"password", headers["webhook-id"], "17", body)
    events = json.loads(body)
    assert [(event["position"], event["event"]["type"]) for event in events] == [
        (number, "call.admitted") for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("answer", [(500, b""), (404, b"no"), (301, b""), (307, b"")])
async def test_only_a_2xx_takes_a_batch(receiver, answer):
    """An error or a redirect is a failure; nothing is followed, and the next batch goes through."""
    receiver.answers.append(answer)
    sink = webhook(receiver.url)
    with pytest.raises(SinkFailedError, match=str(answer[0])):
        await sink.deliver(stored())
    await sink.deliver(stored())
    await sink.close()
    assert [path for path, _, _ in receiver.requests] == ["/", "/"]


async def test_a_silent_or_missing_receiver_is_a_failure(receiver):
    """Nobody there, and nobody answering in time; a connection that broke is not used again."""
    sink = webhook(receiver.url, timeout_seconds=2.0)
    receiver.hold.clear()
    with pytest.raises(SinkFailedError, match="TimeoutError"):
        await sink.deliver(stored())
    receiver.hold.set()
    await sink.deliver(stored())
    await sink.close()
    nobody = webhook("http://127.0.0.1:1/")
    with pytest.raises(SinkFailedError, match="ConnectionRefusedError"):
        await nobody.deliver(stored())
    await nobody.close()


async def test_an_answer_that_never_ends_is_given_up():
    """A receiver that answers byte by byte keeps within each silence; the whole is bounded, and the next is sent."""
    drips = asyncio.Event()

    async def drip(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        drips.set()
        with contextlib.closing(writer), contextlib.suppress(*HUNG_UP):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    sink = webhook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout_seconds=0.5)
    async with asyncio.timeout(240), server:
        for _ in range(2):
            drips.clear()
            with pytest.raises(SinkFailedError, match="has not ended after 3 s"):
                await sink.deliver(stored())
            assert drips.is_set()
            await eventually(lambda: not sink._poster._thread._busy)
        await sink.close()


@pytest.mark.parametrize("what", ["key_file", "bearer_file"])
async def test_a_secret_that_cannot_be_read_sends_nothing(receiver, tmp_path, what):
    """Without its key or its token a batch is not sent unsigned or unauthorised."""
    sink = webhook(receiver.url, **{what: tmp_path / "missing"})
    with pytest.raises(SinkFailedError):
        await sink.deliver(stored())
    await sink.close()
    assert receiver.requests == []


async def test_otlp_is_what_opentelemetry_reads(receiver):
    """The official message types parse it strictly, with every field where they expect it."""
    told = []
    sink = OtlpSink("otel", HttpTarget(receiver.url + "/v1/logs"), "centre", lambda *what: told.append(what))
    receiver.answers += [
        (200, b"{}"),
        (200, b""),
        (200, b'{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}'),
        (200, b'{"partialSuccess":{"errorMessage":"\xff"}}'),
        (200, b'{"x":' + b"[" * 20_000),
    ]
    for _ in range(5):
        await sink.deliver(stored())
    await sink.close()
    assert told == [(2, "too old")]
    _, headers, body = receiver.requests[0]
    assert headers["content-type"] == "application/json"
    request = json_format.Parse(body, ExportLogsServiceRequest())
    (resource,) = request.resource_logs
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert attributes["service.name"] == "centre"
    logs = resource.scope_logs[0].log_records
    assert len(logs) == 3
    assert logs[0].time_unix_nano == 1_700_000_000_001_000_000
    assert logs[0].event_name == "leasehold.call.admitted"
    assert json.loads(logs[0].body.string_value)["lease"] == "leases/a"
    named = {one.key: one.value for one in logs[0].attributes}
    assert named["leasehold.position"].int_value == 1
    assert named["leasehold.subject"].string_value == "agent"


RFC5424 = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) "
    rb"(\[.*?\]) (.*)",
    re.DOTALL,
)


def parsed(message):
    """The parts of an RFC 5424 message."""
    found = RFC5424.fullmatch(message)
    assert found, message
    return [part.decode() for part in found.groups()]


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.UDP])
async def test_syslog_is_rfc_5424(transport):
    """Header, structured data and the event, in one frame or datagram each."""
    async with SyslogReceiver() as receiver, asyncio.timeout(240):
        sink = SyslogSink(SyslogTarget(transport, "127.0.0.1", receiver.port), Format.LEASEHOLD, "host one")
        await sink.deliver(stored())
        await eventually(lambda: len(receiver.messages) == 3)
        await sink.close()
    priority, when, host, application, process, message_id, data, text = parsed(receiver.messages[0])
    assert (priority, when) == ("110", "2023-11-14T22:13:20.001Z")
    assert (host, application, process, message_id) == ("host?one", "leasehold", "sidecar-1", "call.admitted")
    assert 'position="1"' in data
    assert json.loads(text)["event"]["type"] == "call.admitted"


async def test_an_event_that_no_datagram_holds_is_cut():
    """A long event goes with its place and without its end, between whole characters; those behind it go too."""
    emitter = Emitter()
    long = emitter.put(b'{"outcome":"denied","type":"x","wall_ms":1,"note":"' + "\u00e9".encode() * 34_000 + b'"}')
    after = emitter.calls(1)[0]
    async with SyslogReceiver() as receiver, asyncio.timeout(240):
        sink = SyslogSink(SyslogTarget(Transport.UDP, "127.0.0.1", receiver.port), Format.LEASEHOLD, "host")
        await sink.deliver([StoredRecord(1, 7, long), StoredRecord(2, 7, after)])
        await eventually(lambda: len(receiver.messages) == 2)
        await sink.close()
    assert 65_500 < len(receiver.messages[0]) <= 65_507
    assert 'position="1"' in parsed(receiver.messages[0])[6]
    assert 'position="2"' in parsed(receiver.messages[1])[6]


async def test_syslog_over_tls_checks_the_server(tmp_path):
    """A server whose certificate is not ours gets nothing."""
    authority = Authority()
    certificate, key = authority.issue().files(tmp_path, "server")
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with SyslogReceiver(context) as receiver, asyncio.timeout(240):
        trusted = SyslogTarget(Transport.TLS, "localhost", receiver.port, roots)
        sink = SyslogSink(trusted, Format.OCSF, "host")
        await sink.deliver(stored())
        await eventually(lambda: len(receiver.messages) == 3)
        await sink.close()
        stranger = SyslogSink(SyslogTarget(Transport.TLS, "localhost", receiver.port), Format.OCSF, "host")
        with pytest.raises(SinkFailedError, match="SSLCertVerificationError"):
            await stranger.deliver(stored())
    assert len(receiver.messages) == 3
    assert json.loads(parsed(receiver.messages[0])[-1])["class_uid"] == 6003


async def test_syslog_connects_anew_when_the_server_went(tmp_path):
    """A closed connection is noticed before the next batch is written into it."""
    async with SyslogReceiver() as receiver, asyncio.timeout(240):
        sink = SyslogSink(SyslogTarget(Transport.TCP, "127.0.0.1", receiver.port), Format.LEASEHOLD, "host")
        await sink.deliver(stored(1))
        await eventually(lambda: receiver.messages)
        await receiver.drop()
        await eventually(sink._stream[0].at_eof)
        await sink.deliver(stored(2))
        await eventually(lambda: len(receiver.messages) == 3)
        await sink.close()
        assert receiver.connections == 2
    gone = SyslogSink(SyslogTarget(Transport.TCP, "127.0.0.1", receiver.port), Format.LEASEHOLD, "host")
    with pytest.raises(SinkFailedError):
        await gone.deliver(stored(1))


async def test_a_hostile_event_stays_inside_its_message():
    """Quotes, brackets and line ends in names are escaped; a header holds visible ASCII only."""
    emitter = Emitter('a"]\\b', "e1")
    record = emitter.put(b'{"outcome":"denied","type":"x y\\nz","wall_ms":9007199254740992}')
    async with SyslogReceiver() as receiver, asyncio.timeout(240):
        sink = SyslogSink(SyslogTarget(Transport.TCP, "127.0.0.1", receiver.port), Format.LEASEHOLD, "")
        await sink.deliver([StoredRecord(1, 7, record)])
        await eventually(lambda: receiver.messages)
        await sink.close()
    head = receiver.messages[0].decode()
    assert head.startswith("<108>1 9999-12-31T23:59:59.999Z - leasehold ")
    assert " x?y?z [" in head
    assert 'stream="a\\"\\]\\\\b"' in head


async def test_a_file_is_appended_synced_and_followed(tmp_path):
    """Lines are appended; a file that was moved away is made anew; a line that a crash cut stays apart."""
    path = tmp_path / "audit.jsonl"
    sink = FileSink("lines", path, Format.OCSF)
    await sink.deliver(stored(2))
    assert path.stat().st_mode & 0o777 == 0o600
    assert [json.loads(line)["class_uid"] for line in path.read_text().splitlines()] == [6003, 6003]
    path.rename(tmp_path / "audit.1")
    await sink.deliver(stored(1))
    assert len(path.read_text().splitlines()) == 1
    with path.open("ab") as file:
        file.write(b'{"cut')
    await sink.deliver(stored(1))
    lines = path.read_text().splitlines()
    assert lines[1] == '{"cut'
    assert json.loads(lines[2])["class_uid"] == 6003
    await sink.close()


async def test_a_file_that_cannot_be_written_is_a_failure(tmp_path):
    """A missing folder, or a link that someone put there: nothing is written elsewhere."""
    with pytest.raises(SinkFailedError, match="cannot be written"):
        await FileSink("lines", tmp_path / "missing" / "a", Format.OCSF).deliver(stored(1))
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(SinkFailedError, match="cannot be written"):
        await FileSink("lines", tmp_path / "link", Format.OCSF).deliver(stored(1))
    assert not (tmp_path / "target").exists()


HOLD_OPEN = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""
"""Whoever opens the file from now on waits in the kernel, as at a disk that hangs, until this process ends."""


@contextlib.contextmanager
def hung(path):
    """A file that hangs when it is opened; skipped where its file system has no leases."""
    path.touch(mode=0o600)
    command = [sys.executable, "-c", HOLD_OPEN, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        if holder.stdout.readline() != b"held\n":
            pytest.skip("no leases on files here")
        yield
        holder.stdin.close()
        holder.wait(30)


async def test_files_that_hang_hold_up_nothing_else(tmp_path):
    """More of them than the loop has threads: one beside them is written, the loop's threads are free, and all end."""
    count = 2 * (os.cpu_count() or 1) + 8
    sinks = [FileSink(f"hung-{number}", tmp_path / f"{number}", Format.OCSF, 0.5) for number in range(count)]
    async with asyncio.timeout(240):
        with contextlib.ExitStack() as all_hung:
            for number in range(count):
                all_hung.enter_context(hung(tmp_path / f"{number}"))
            waiting = [asyncio.create_task(sink.deliver(stored(1))) for sink in sinks]
            await FileSink("lines", tmp_path / "lines", Format.OCSF).deliver(stored(2))
            assert await asyncio.to_thread(lambda: "free") == "free"
            failures = await asyncio.gather(*waiting, return_exceptions=True)
            assert {str(failure) for failure in failures} == {"it has not ended after 0.5 s"}
            with pytest.raises(SinkFailedError, match="hangs still"):
                await sinks[0].deliver(stored(1))
        assert len((tmp_path / "lines").read_text().splitlines()) == 2
        await eventually(lambda: (tmp_path / "0").stat().st_size)
        await eventually(lambda: not any(one.name.startswith("sink-hung") for one in threading.enumerate()))
        await eventually(lambda: not sinks[0]._thread._busy)
        await sinks[0].deliver(stored(1))
    assert len((tmp_path / "0").read_text().splitlines()) == 2


def test_a_process_ends_while_its_file_hangs(tmp_path):
    """Whatever a sink is stuck in, the process does not wait for it at its end."""
    program = (
        "import asyncio, sys, pathlib, uvloop\n"
        "from tests.fakes.streams import Emitter\n"
        "from leasehold_broker.adapters.sinks import FileSink, Format\n"
        "from leasehold_broker.domain.audit_query import StoredRecord\n"
        "async def main():\n"
        "    sink = FileSink('hung', pathlib.Path(sys.argv[1]), Format.OCSF)\n"
        "    task = asyncio.create_task(sink.deliver([StoredRecord(1, 7, Emitter().calls(1)[0])]))\n"
        "    await asyncio.sleep(0.2)\n"
        "    task.cancel()\n"
        "    await asyncio.wait([task])\n"
        "asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())\n"
    )
    with hung(tmp_path / "file"):
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")], timeout=30, check=False)
    assert done.returncode == 0


async def test_what_is_no_file_is_a_failure(tmp_path):
    """A pipe keeps nothing, and nobody could tell: it is refused before a byte goes there."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(SinkFailedError, match="not a regular file"):
        await FileSink("lines", tmp_path / "pipe", Format.OCSF).deliver(stored(1))
