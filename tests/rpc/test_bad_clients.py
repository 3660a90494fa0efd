"""Bad gRPC clients on raw sockets before the real server and shim: it stays up and small, and serves good clients."""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.fakes.rpc import METADATA, Door, open_door
from tests.rpc.bad_frames import CASES, START, floods

from leasehold.v1 import lease_service_pb2, lease_service_pb2_grpc
from leasehold_broker.rpc.caller import CallContext
from leasehold_broker.rpc.server import RpcServer, ServerLimits

SERVICE = lease_service_pb2.DESCRIPTOR.services_by_name["LeaseService"]
GROWTH_BYTES_MAX = 50 * 1024 * 1024
PATIENCE_SECONDS = 0.5
STEPS = 10_000
CUT_OFF = {"pings", "made to reset", "endless continuation", "empty continuation", "cut headers", "header bomb"}
"""Floods that end their connection; the others may be let through to their end."""


async def _answer(_request: Any, _call: CallContext) -> lease_service_pb2.AcquireLeaseResponse:
    return lease_service_pb2.AcquireLeaseResponse(lease_token="served")


async def _watch(_request: Any, _call: CallContext) -> AsyncIterator[lease_service_pb2.WatchLeaseResponse]:
    yield lease_service_pb2.WatchLeaseResponse()


def serve_on(server: RpcServer) -> None:
    """Every method, as short as can be."""
    unary = {method.name: _answer for method in SERVICE.methods if not method.server_streaming}
    server.serve(SERVICE, {**unary, "WatchLease": _watch})


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """The open door, with our own limits but a short handshake."""
    async with open_door(tmp_path, serve_on, limits=ServerLimits(handshake_seconds_max=1)) as opened:
        yield opened


async def good_call(door: Door) -> str:
    """What a good client gets."""
    async with grpc.aio.insecure_channel(door.unix) as channel:
        stub = lease_service_pb2_grpc.LeaseServiceStub(channel)
        answer = await stub.AcquireLease(lease_service_pb2.AcquireLeaseRequest(), metadata=METADATA, timeout=20)
        return str(answer.lease_token)


async def send(door: Door, pieces: Iterable[bytes], patience_seconds: float = PATIENCE_SECONDS) -> bytes:
    """Send the pieces while reading, wait for silence or the end, hang up; returns what came back."""
    reader, writer = await asyncio.open_unix_connection(str(door.socket_path))
    got = bytearray()

    async def read() -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                got.extend(data[-4096:])
                del got[:-65536]

    reading = asyncio.create_task(read())
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            if writer.transport.get_write_buffer_size() > 65536:
                await asyncio.wait_for(writer.drain(), 20)
            if reading.done():
                break
    await asyncio.wait({reading}, timeout=patience_seconds)
    reading.cancel()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return bytes(got)


async def settled(door: Door) -> None:
    """Until the shim has let go of every connection."""
    async with asyncio.timeout(240):
        while door.shim.connection_count:  # noqa: ASYNC110 - the shim tells nobody
            await asyncio.sleep(0.01)


def resident_bytes() -> int:
    """Memory of this process, in which client and server run."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_every_bad_client_leaves_the_server_as_it_was(door: Door) -> None:
    """After each bad client hangs up its connection is gone, and a good client is served; memory stays bounded."""
    assert await good_call(door) == "served"
    before = resident_bytes()
    names = list(CASES)
    for start in range(0, len(names), 20):
        batch = names[start : start + 20]
        await asyncio.gather(*(send(door, [CASES[name]], 0.05) for name in batch))
        await settled(door)
        assert await good_call(door) == "served", batch
        await settled(door)
    assert resident_bytes() - before < GROWTH_BYTES_MAX
    assert len(CASES) >= 180


async def test_no_bad_client_reaches_a_handler(door: Door) -> None:
    """Nothing that was ever asked without our metadata got past the surroundings."""
    for name, text in CASES.items():
        if name.startswith("server_registered_method"):
            answer = await send(door, [text], 0.05)
            assert b"served" not in answer, name
    assert all(refused.identity is None for refused in door.recorder.kept)


async def flooded(door: Door, name: str) -> tuple[int, int]:
    """Let another process flood; returns how many pieces it got out, and by how much this process grew at most."""
    before = peak = resident_bytes()
    attacker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.rpc.bad_frames", str(door.socket_path), name, str(STEPS)),
        stdout=asyncio.subprocess.PIPE,
    )
    ended = asyncio.create_task(attacker.communicate())
    while not ended.done():
        await asyncio.wait({ended}, timeout=0.02)
        peak = max(peak, resident_bytes())
    return int(ended.result()[0]), peak - before


@pytest.mark.parametrize("name", floods(0))
async def test_floods(door: Door, name: str) -> None:
    """Under a flood the server grows by 50 MiB at most, serves a good client, and recovers."""
    assert await good_call(door) == "served"
    flood = asyncio.create_task(flooded(door, name))
    while not flood.done():
        assert await good_call(door) == "served"
    pieces, growth = await flood
    await settled(door)
    assert growth < GROWTH_BYTES_MAX
    assert pieces < STEPS or name not in CUT_OFF


async def test_what_comes_before_the_pipe_stands_is_counted_once(door: Door) -> None:
    """A preface in the first read, as every client sends it, then an endless header block: it is seen, and ended."""
    reader, writer = await asyncio.open_unix_connection(str(door.socket_path))
    writer.write(START)
    assert await reader.read(9)
    for piece in itertools.islice(floods(3)["endless continuation"], 3):
        writer.write(piece)
    async with asyncio.timeout(240):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
    writer.close()
    await settled(door)


async def test_silent_connections_are_closed(door: Door) -> None:
    """Who opens a connection and says nothing, or half a preface, is closed by the handshake limit."""
    opened = [await asyncio.open_unix_connection(str(door.socket_path)) for _ in range(100)]
    for number, (_, writer) in enumerate(opened):
        writer.write(START[: number % 24])
    assert await good_call(door) == "served"
    async with asyncio.timeout(240):
        for reader, writer in opened:
            with contextlib.suppress(ConnectionError):
                while await reader.read(4096):
                    pass
            writer.close()
    await settled(door)
    assert await good_call(door) == "served"
