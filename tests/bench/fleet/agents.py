"""A process of agents: each has a lease, calls at a steady pace, holds a stream, and starts anew when it is revoked.

Run `python -m tests.bench.fleet.agents PLAN`: says "ready" once all call; writes what became of each lease when its
input ends. Raw sockets, one request at a time on each: the times are the sidecar's, not a library's.
"""

import asyncio
import json
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import uvloop
from tests.bench.load import request_bytes

from leasehold.v1 import lease_service_pb2, lease_service_pb2_grpc, types_pb2

PACE_SECONDS = 0.02
ANSWER_SECONDS = 20.0
REFUSED = b"leasehold-refused-by"


@dataclass
class Life:
    """One lease of one agent, in nanoseconds of the monotonic clock; 0 for what did not happen."""

    agent: int
    lease: int
    first_taken_ns: int = 0
    last_taken_ns: int = 0
    """When the last call that was answered by the provider was sent."""
    refused_ns: int = 0
    """When the first refusal was read."""
    refused_by: str = ""
    cut_ns: int = 0
    """When the stream had ended."""


class Agent:
    """One agent at one sidecar."""

    def __init__(self, number: int, channel: grpc.aio.Channel, token: str, lives: list[Life]) -> None:
        """Note its lives into this list, once each is over."""
        self._number = number
        self._stub = lease_service_pb2_grpc.LeaseServiceStub(channel)
        self._metadata = (("leasehold", "1"), ("authorization", f"Bearer {token}"))
        self._lives = lives
        self.calling = asyncio.Event()

    async def run(self) -> None:
        """Live one lease after the other, until cancelled."""
        for lease in range(1, sys.maxsize):
            asked = lease_service_pb2.AcquireLeaseRequest(
                request_id=str(uuid.uuid4()), scopes=[types_pb2.Scope(provider="anthropic")]
            )
            try:
                got = await self._stub.AcquireLease(asked, metadata=self._metadata, timeout=ANSWER_SECONDS)
            except grpc.aio.AioRpcError:  # revoked before it was there: several responders are at it
                await asyncio.sleep(PACE_SECONDS)
                continue
            base = next(endpoint.base_url for endpoint in got.endpoints if endpoint.provider == "anthropic")
            port = int(base.split(":")[2].partition("/")[0])
            life = Life(self._number, lease)
            await asyncio.gather(
                self._call(life, port, got.lease_token), self._hold_stream(life, port, got.lease_token)
            )
            self._lives.append(life)

    def _request(self, life: Life, port: int, token: str, *, stream: bool) -> bytes:
        words = f"call-{life.agent}-{life.lease}"
        return request_bytes(port, "/anthropic", token, stream=stream, words=words)

    async def _call(self, life: Life, port: int, token: str) -> None:
        asked = self._request(life, port, token, stream=False)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while True:
                sent = time.monotonic_ns()
                writer.write(asked)
                head, body = await asyncio.wait_for(_answer(reader), ANSWER_SECONDS)
                if REFUSED in head.lower():
                    life.refused_ns = time.monotonic_ns()
                    life.refused_by = body.decode()
                    return
                life.first_taken_ns = life.first_taken_ns or sent
                life.last_taken_ns = sent
                self.calling.set()
                await asyncio.sleep(PACE_SECONDS)
        finally:
            writer.close()

    async def _hold_stream(self, life: Life, port: int, token: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(self._request(life, port, token, stream=True))
            ended = b""
            while not ended.endswith(b"\r\n0\r\n\r\n"):
                data = await reader.read(65536)
                if not data:
                    break
                ended = (ended + data)[-16:]
            life.cut_ns = time.monotonic_ns()
        except ConnectionError:
            life.cut_ns = time.monotonic_ns()
        finally:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of one answer, whose length is stated or whose chunks are not looked at."""
    head = await reader.readuntil(b"\r\n\r\n")
    stated = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
    return head, await (reader.readexactly(int(stated)) if stated else reader.readuntil(b"\r\n0\r\n\r\n"))


async def _run(plan: dict) -> None:
    lives: list[Life] = []
    agents = [
        Agent(number, grpc.aio.insecure_channel(target), _read(token), lives)
        for number, (target, token) in enumerate(plan["agents"])
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(agent.run()) for agent in agents]
        for agent in agents:
            await agent.calling.wait()
        print("ready", flush=True)  # noqa: T201 - the parent waits for it
        await asyncio.to_thread(sys.stdin.readline)
        for task in tasks:
            task.cancel()
    _write(plan["out"], [asdict(life) for life in lives])


def _read(path: str) -> str:
    return Path(path).read_text().strip()


def _write(path: str, noted: object) -> None:
    Path(path).write_text(json.dumps(noted))


if __name__ == "__main__":
    uvloop.run(_run(json.loads(Path(sys.argv[1]).read_text())))
