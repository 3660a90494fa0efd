"""What the link does when the other side is silent, false, or rotated: it throws the channel away and starts anew."""

import asyncio
import contextlib
import datetime as dt
import gc
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.collector.test_budget_changes import ROWS, wish
from tests.collector.test_link import revoke
from tests.fakes.centre import Centre, Operator, Sidecar, eventually
from tests.fakes.certificates import identified
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.adapters.collector_link import Backoff, TlsFiles
from leasehold_broker.adapters.collector_link.authority import Authority
from leasehold_broker.adapters.collector_link.shipping import BATCH_BYTES_MAX, RECORD_OVERHEAD_BYTES, first_batch
from leasehold_broker.adapters.collector_link.streams import LinkBrokenError, together
from leasehold_broker.adapters.server_tls import ServerTls, ServerTlsFiles
from leasehold_broker.domain.audit_chain import GENESIS, ChainedRecord
from leasehold_broker.domain.sync import Push
from leasehold_broker.ports.outbox import PendingRecord


async def test_a_silent_collector_is_left_for_a_new_connection(tmp_path):
    """A peer that takes the connection and never answers is given up; the next connection is a new one."""
    swallowing: list[asyncio.Task[None]] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        swallowing.append(asyncio.current_task())
        while await reader.read(4096):
            pass
        writer.close()
        await writer.wait_closed()

    socket = tmp_path / "collector.sock"
    async with asyncio.timeout(240):
        sidecar = Sidecar(f"unix:{socket}")
        sidecar.link._settings = replace(sidecar.settings, answer_seconds_max=0.2)
        sidecar.emit(3)
        hole = await asyncio.start_unix_server(swallow, socket)
        async with sidecar:
            await eventually(lambda: len(swallowing) >= 4)
            assert sidecar.link.counters.failures["LINK_BROKEN"] >= 2
            assert sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is not None
            hole.close()
            await asyncio.gather(*swallowing, return_exceptions=True)  # how they ended is not the question
            socket.unlink(missing_ok=True)  # Python 3.13 has done it
            async with Centre(tmp_path):
                await sidecar.outbox.empty()
                await eventually(lambda: sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None)


async def test_a_write_that_grpc_cancels_ends_no_link():
    """A process that was stopped finds its answer late and its write cancelled in one turn: it starts anew."""

    async def receive():
        await asyncio.sleep(0)
        raise LinkBrokenError("the collector is silent")

    async def cancelled():
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    for _ in range(50):  # the order of a set of tasks is by address
        with pytest.raises(LinkBrokenError, match="silent"):
            await together(receive(), cancelled())
    with pytest.raises(LinkBrokenError, match="cancelled here"):
        await together(cancelled(), asyncio.Event().wait())
    outer = asyncio.create_task(together(asyncio.Event().wait(), asyncio.Event().wait()))
    await asyncio.sleep(0)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer


async def test_a_link_whose_stream_is_cancelled_by_grpc_goes_on(tmp_path):
    """Nobody has told the link to end, so it does not: a sidecar would refuse everything from then on, for good."""
    calls = []

    async def session(_channel):
        calls.append(len(calls))
        if len(calls) < 3:
            raise asyncio.CancelledError

    sidecar = Sidecar(f"unix:{tmp_path / 'nobody.sock'}")
    keeping = asyncio.create_task(sidecar.link._keep("sync", session))
    async with asyncio.timeout(240):
        await eventually(lambda: len(calls) > 3)
    assert sidecar.link.counters.failures == {"CANCELLED": 2}
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping


async def test_a_refused_link_leaves_no_connection_behind(tmp_path):
    """A closed channel lets go of its connection at once, not with the garbage: a banned sidecar tries for hours."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre:
        sidecar = Sidecar(centre.target, "stranger")
        gc.collect()
        gc.disable()
        try:
            async with sidecar:
                await eventually(lambda: sidecar.link.counters.connects.get("sync", 0) > 10)
            left = [one for one in gc.get_objects() if isinstance(one, grpc.aio.Channel)]
        finally:
            gc.enable()
        assert len(left) <= 2


async def test_mutual_tls_with_rotated_certificates(tmp_path):
    """The link speaks mutual TLS, refuses a false collector, and reads rotated files at its next connect."""
    one, other = tmp_path / "one", tmp_path / "other"
    certify(one)
    certify(other)
    async with asyncio.timeout(240), Centre(tmp_path) as unused:
        assert unused.target
        (tmp_path / "tls").mkdir()
        (one / "key.pem").chmod(0o600)
        own = ServerTls(ServerTlsFiles(one / "cert.pem", one / "key.pem", one / "cert.pem"))
        files = tmp_path / "files"
        files.mkdir()
        tls = TlsFiles(files / "cert.pem", files / "cert.pem", files / "key.pem", server_name="collector.test")
        async with Centre(tmp_path / "tls", tls=own.context) as centre, contextlib.AsyncExitStack() as stack:
            sidecar = Sidecar(f"127.0.0.1:{centre.port}")
            sidecar.link._settings = replace(sidecar.settings, tls=tls)
            await stack.enter_async_context(sidecar)
            await eventually(lambda: "FILE_UNREADABLE" in sidecar.link.counters.failures)
            place(other, files)
            await eventually(lambda: "UNAVAILABLE" in sidecar.link.counters.failures)
            assert centre.fleet.members == {}
            place(one, files)
            await eventually(lambda: sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None)
            sidecar.emit(2)
            await sidecar.outbox.empty()


@pytest.mark.parametrize("content", [b"", b"\n", b"\0-----BEGIN ", b"no PEM"])
@pytest.mark.parametrize("half", ["roots.pem", "cert.pem", "key.pem"])
async def test_a_file_that_is_being_written_ends_no_process(tmp_path, half, content):
    """Truncated, and not written yet: gRPC aborts over such a key; the link counts it, and tries again."""
    files = tmp_path / "files"
    certify(files)
    (files / "roots.pem").write_bytes((files / "cert.pem").read_bytes())
    (files / half).write_bytes(content)
    sidecar = Sidecar("127.0.0.1:1")
    tls = TlsFiles(files / "roots.pem", files / "cert.pem", files / "key.pem")
    sidecar.link._settings = replace(sidecar.settings, tls=tls)
    async with sidecar, asyncio.timeout(240):
        await eventually(lambda: sidecar.link.counters.failures.get("FILE_UNREADABLE", 0) >= 4)
        certify(tmp_path / "whole")
        (files / half).write_bytes((tmp_path / "whole" / half.replace("roots", "cert")).read_bytes())
        await eventually(lambda: sidecar.link.counters.failures.get("UNAVAILABLE", 0) >= 1)


def certify(folder: Path) -> None:
    """A self-signed certificate for collector.test, and its key."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("collector.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    certificate = identified(builder, key, key, authority=True).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def place(source: Path, target: Path) -> None:
    """Rotate the files that the link reads."""
    for name in ("key.pem", "cert.pem"):
        (target / name).write_bytes((source / name).read_bytes())


def test_authority_starts_when_the_answered_heartbeat_was_sent():
    """Not when the answer came, not for an answer to an older session, and not before its entries are applied."""
    clock = ManualClock()
    authority = Authority(clock.now())
    first = authority.heartbeat(clock.now())
    clock.advance(4)
    authority.answered(Push(2, (), 10.0, first), applied_epoch=1, history=b"")
    assert authority.lapsed_seconds(clock.now()) is not None
    authority.answered(Push(2, (), 10.0, 0), applied_epoch=2, history=b"")
    assert authority.lapsed_seconds(clock.now()) is not None
    authority.answered(Push(2, (), 10.0, first), applied_epoch=2, history=b"")
    clock.advance(5.9)
    assert authority.lapsed_seconds(clock.now()) is None
    clock.advance(0.2)
    assert authority.lapsed_seconds(clock.now()) is not None
    authority.new_session()
    authority.answered(Push(2, (), 10.0, first), applied_epoch=2, history=b"")
    assert authority.lapsed_seconds(clock.now()) is not None


def test_r4_an_answer_of_another_history_gives_no_authority():
    """The number is the same and the content is not: what the centre has revoked is not in force here."""
    clock = ManualClock()
    authority = Authority(clock.now())
    first = authority.heartbeat(clock.now())
    authority.answered(Push(2, (), 10.0, first, history=b"c" * 32), applied_epoch=2, history=b"s" * 32)
    assert authority.lapsed_seconds(clock.now()) is not None
    authority.answered(Push(2, (), 10.0, first, history=b"c" * 32), applied_epoch=2, history=b"c" * 32)
    assert authority.lapsed_seconds(clock.now()) is None


def test_an_earlier_answer_never_shortens_authority():
    """Answers may repeat or come late: the deadline only moves on."""
    clock = ManualClock()
    authority = Authority(clock.now())
    first = authority.heartbeat(clock.now())
    clock.advance(5)
    second = authority.heartbeat(clock.now())
    authority.answered(Push(0, (), 10.0, second), applied_epoch=0, history=b"")
    authority.answered(Push(0, (), 10.0, first), applied_epoch=0, history=b"")
    clock.advance(9.9)
    assert authority.lapsed_seconds(clock.now()) is None


def test_a_batch_is_one_epoch_within_its_bytes():
    """Batches end at a change of epoch or at the byte limit, and hold at least one record, however large."""

    def pending(position: int, epoch: str, size: int) -> PendingRecord:
        return PendingRecord(position, ChainedRecord("s", epoch, position, GENESIS, bytes(size), GENESIS))

    assert len(first_batch([pending(1, "a", 10), pending(2, "a", 10), pending(3, "b", 10)])) == 2
    assert len(first_batch([pending(1, "a", BATCH_BYTES_MAX * 2), pending(2, "a", 10)])) == 1
    quarter = BATCH_BYTES_MAX // 4 - RECORD_OVERHEAD_BYTES
    assert len(first_batch([pending(n, "a", quarter) for n in range(1, 9)])) == 4


def test_waits_grow_to_their_cap_with_full_jitter():
    """A wait lies between nothing and a ceiling that doubles up to its cap; refusals wait longer."""
    most = Backoff(chance=lambda: 1.0)
    assert [most.seconds(attempt, refused=False) for attempt in (0, 1, 2, 50)] == [0.5, 1.0, 2.0, 10.0]
    assert most.seconds(50, refused=False, authority=60.0) == 10.0
    assert most.seconds(50, refused=False, authority=30.0) == pytest.approx(5.0)
    assert most.seconds(50, refused=False, authority=0.1) == 0.5
    assert most.seconds(50, refused=True, authority=30.0) == 60.0
    assert most.seconds(50, refused=True) == 60.0
    assert Backoff(chance=lambda: 0.0).seconds(50, refused=False) == 0.0


async def test_what_was_lost_within_a_session_is_asked_for_anew(tmp_path):
    """A collector that took for sent what did not arrive is left at its next word, not when its session ends."""
    async with Centre(tmp_path) as centre, Sidecar(centre.target) as sidecar, asyncio.timeout(240):
        sidecar.budgets = ROWS
        await eventually(lambda: any(member.budgets.total for member in centre.fleet.members.values()))
        session = centre.sync._open["sidecar-1"]
        session._sent += 1
        await revoke(centre)
        await sidecar.sink.reached(1)
        assert centre.sync._open["sidecar-1"] is not session
        assert sidecar.link.counters.failures["LINK_BROKEN"] >= 1

        await eventually(lambda: any(member.budgets.total for member in centre.fleet.members.values()))
        session = centre.sync._open["sidecar-1"]
        session._sent_change += 1
        async with Operator(centre.target, "alice/treasurer") as alice:
            await alice.budgets.ChangeBudget(wish(), **alice.how)
        await eventually(lambda: sidecar.budget_sink.applied_budget_change() == 1)
        assert centre.sync._open["sidecar-1"] is not session
        await eventually(lambda: sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None)
