"""Streams that are opened and not used: they are checked before their message comes, bounded, and ended."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from structlog.testing import capture_logs
from tests.fakes.loop_clock import LoopClock
from tests.fakes.manual_clock import ManualClock
from tests.fakes.rpc import METADATA, TOKEN, Door, open_door
from tests.rpc.bad_frames import END_HEADERS, HEADERS, RESET, START, frame, request_headers
from tests.rpc.test_bad_clients import good_call, serve_on

from leasehold.v1 import lease_service_pb2, lease_service_pb2_grpc
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.rpc import requests
from leasehold_broker.rpc.refusal_lines import LINES_AT_ONCE_MAX, LINES_PER_SECOND, RefusalLines
from leasehold_broker.rpc.server import ServerLimits
from leasehold_broker.rpc.surround import PROBES_PER_PEER_MAX

ACQUIRE = "/leasehold.v1.LeaseService/AcquireLease"
CHECK = "/grpc.health.v1.Health/Check"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """An open door that takes few calls at once, so that a test can fill it."""
    async with open_door(tmp_path, serve_on, limits=ServerLimits(calls_max=200)) as opened:
        yield opened


@pytest.fixture
async def braked(tmp_path: Path) -> AsyncIterator[Door]:
    """An open door whose shim hears of refusals, as a real one's does."""
    async with open_door(tmp_path, serve_on, braked=True) as opened:
        yield opened


async def unused(door: Door, path: str, count: int, **headers: bytes) -> list[asyncio.StreamWriter]:
    """Open so many streams, a hundred on each connection, and send no message on any."""
    writers = []
    block = request_headers(path.encode(), leasehold=b"1", grpc_timeout=b"60S", **headers)
    for _ in range(count // 100):
        reader, writer = await asyncio.open_unix_connection(str(door.socket_path))
        writer.write(START + b"".join(frame(HEADERS, END_HEADERS, 2 * n + 1, block) for n in range(100)))
        await writer.drain()
        await reader.read(1)
        writers.append(writer)
    return writers


async def refused(pending: Any) -> tuple[grpc.StatusCode, str]:
    """Code and reason of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pending
    status, info = rpc_status.from_call(caught.value), error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    return caught.value.code(), info.reason


async def until_it_fails(call: Callable[[], Awaitable[Any]]) -> None:
    """Call on: what was sent before on other connections may come later."""
    async with asyncio.timeout(240):
        while True:
            await call()


async def recorded(door: Door, count: int) -> None:
    """Return once so many refusals are."""
    async with asyncio.timeout(240):
        while len(door.recorder.kept) < count:  # noqa: ASYNC110 - the recorder tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", [ACQUIRE, "/leasehold.v1.LeaseService/WatchLease", CHECK, "/foo/bar"])
async def test_unused_streams_of_nobody_do_not_fill_the_server(door: Door, path: str) -> None:
    """Far more streams than the server takes calls, without a good token: a good client is served meanwhile."""
    writers = await unused(door, path, 1000, authorization=b"Bearer bad")
    async with asyncio.timeout(240):
        while True:
            try:
                assert await good_call(door) == "served"
                break
            except grpc.aio.AioRpcError:  # the last of them are being refused
                continue
    for writer in writers:
        writer.close()


async def test_unused_streams_of_a_known_caller_are_bounded_and_end(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a good token they hold what one peer may hold, until the message is overdue; each end is recorded."""
    monkeypatch.setattr(requests, "REQUEST_SECONDS_MAX", 20.0)  # none is overdue before the last has come
    clock = LoopClock()
    writers = await unused(door, ACQUIRE, 100, authorization=b"Bearer " + TOKEN.encode())
    await recorded(door, 36)
    clock.push(20.0)
    await recorded(door, 100)
    assert await good_call(door) == "served"
    reasons = [refusal.reason for refusal in door.recorder.kept]
    assert reasons.count(Reason.CONCURRENCY_EXCEEDED) == 36  # the door of the tests allows 64
    assert reasons.count(Reason.FIELD_INVALID) == 64
    for writer in writers:
        writer.close()


async def test_whoever_drops_the_calls_that_it_begins_is_slowed_down(braked: Door) -> None:
    """Calls that are begun and dropped, with a good token: after its allowance the bytes of that peer wait."""
    block = request_headers(
        ACQUIRE.encode(), leasehold=b"1", grpc_timeout=b"60S", authorization=b"Bearer " + TOKEN.encode()
    )
    holder, writers = f"uid:{os.getuid()}", []
    async with asyncio.timeout(240):
        while not braked.shim.brake.holds(holder):
            _, writer = await asyncio.open_unix_connection(str(braked.socket_path))
            writers.append(writer)
            writer.write(START + b"".join(frame(HEADERS, END_HEADERS, number, block) for number in range(1, 99, 2)))
            await asyncio.sleep(0.02)  # one that is reset in the same breath never reaches us, and costs nothing
            writer.write(b"".join(frame(RESET, 0, number, b"\0\0\0\x08") for number in range(1, 99, 2)))
    for writer in writers:
        writer.close()


async def test_leaving_a_stream_is_no_fault(braked: Door) -> None:
    """A watcher that goes away as watchers do is never slowed down for it."""
    async with grpc.aio.insecure_channel(braked.unix) as channel:
        stub = lease_service_pb2_grpc.LeaseServiceStub(channel)
        for _ in range(150):
            watch = stub.WatchLease(lease_service_pb2.WatchLeaseRequest(), metadata=METADATA)
            await watch.read()
            watch.cancel()
    assert not braked.shim.brake.holds(f"uid:{os.getuid()}")


@pytest.mark.parametrize(
    "message", [b"\xff\xff\xff", b"\x0a\x05abc", b"\x0a\x02\xc3\x28"], ids=["garbage", "cut", "not UTF-8"]
)
async def test_bytes_that_are_no_message_are_an_invalid_argument(door: Door, message: bytes) -> None:
    """The caller is told what was expected, and the refusal is recorded; it is no fault of ours."""
    async with grpc.aio.insecure_channel(door.unix) as channel:
        raw = channel.unary_unary(ACQUIRE)
        code, reason = await refused(raw(message, metadata=METADATA, timeout=60))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert [refusal.reason for refusal in door.recorder.kept] == [Reason.FIELD_INVALID]


async def test_a_call_without_a_message_is_an_invalid_argument(door: Door) -> None:
    """A caller that closes its side without having said anything is told so."""

    async def nothing() -> AsyncIterator[bytes]:
        for message in ():
            yield message

    async with grpc.aio.insecure_channel(door.unix) as channel:
        raw = channel.stream_unary(ACQUIRE)
        code, reason = await refused(raw(nothing(), metadata=METADATA, timeout=60))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_probes_of_one_peer_are_bounded(door: Door) -> None:
    """Health answers everybody, but nobody holds more probes open than allowed; then the rest are refused."""
    assert PROBES_PER_PEER_MAX < 100
    writers = await unused(door, CHECK, 100)
    async with grpc.aio.insecure_channel(door.unix) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        code, reason = await refused(until_it_fails(lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=60)))
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CONCURRENCY_EXCEEDED")
        for writer in writers:
            writer.close()
        async with asyncio.timeout(240):
            while True:
                try:
                    listed = await health.List(health_pb2.HealthListRequest(), timeout=60)
                    break
                except grpc.aio.AioRpcError:  # the closed ones are being noticed
                    continue
    assert set(listed.statuses) == {"", "leasehold.background", "leasehold.v1.LeaseService"}
    assert door.recorder.kept == []


def test_a_flood_of_refusals_does_not_fill_the_log() -> None:
    """A burst is told line by line, then so many a second; each line says how many were left out before it."""
    clock, lines = ManualClock(), RefusalLines()
    with capture_logs() as told:
        for _ in range(10_000):
            lines.tell("m", "r", Reason.JWT_MALFORMED, clock.now())
        assert len(told) == LINES_AT_ONCE_MAX
        clock.advance(1)
        for _ in range(10_000):
            lines.tell("m", "r", Reason.JWT_MALFORMED, clock.now())
    assert len(told) == LINES_AT_ONCE_MAX + LINES_PER_SECOND
    assert "untold_before" not in told[0]
    assert told[LINES_AT_ONCE_MAX]["untold_before"] == 10_000 - LINES_AT_ONCE_MAX
