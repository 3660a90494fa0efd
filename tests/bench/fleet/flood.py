"""A process of sidecars that ship events without a pause: what a collector may have to do beside revocations.

Run `python -m tests.bench.fleet.flood PLAN`: says "ready", ships from a line on its input until that ends, and writes
how many events were acknowledged, and over how many seconds. Batches are made beforehand, as in `bench-ingest`.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc
import uvloop
from tests.bench.shippers import METHOD, batches

from leasehold.v1 import audit_service_pb2
from leasehold_broker.adapters.collector_link.shipping import WINDOW_BATCHES_MAX


class Shipper:
    """One sidecar that has much to tell."""

    def __init__(self, name: str, plan: dict) -> None:
        """Make what it ships."""
        self._name, self._target, self._folder = name, plan["target"], Path(plan["certificates"])
        self._batches = batches(name, plan["events"])
        self.acknowledged = 0

    async def run(self) -> None:
        """Ship until cancelled, or until all is shipped."""
        read = [(self._folder / file).read_bytes() for file in ("ca.pem", f"{self._name}.key", f"{self._name}.pem")]
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
        async with grpc.aio.secure_channel(self._target, grpc.ssl_channel_credentials(*read), options) as channel:
            answer_of = audit_service_pb2.AppendEventsResponse.FromString
            method = channel.stream_stream(METHOD, request_serializer=None, response_deserializer=answer_of)
            call = method(metadata=(("leasehold", "1"),))
            window = asyncio.Semaphore(WINDOW_BATCHES_MAX)
            sending = asyncio.create_task(self._send(call, window))
            try:
                for _, last in self._batches:
                    answer = await call.read()
                    self.acknowledged = answer.committed_sequence
                    assert self.acknowledged == last
                    window.release()
            finally:
                sending.cancel()

    async def _send(self, call, window: asyncio.Semaphore) -> None:
        for request, _ in self._batches:
            await window.acquire()
            await call.write(request)


async def _run(plan: dict) -> None:
    shippers = [Shipper(name, plan) for name in plan["names"]]
    print("ready", flush=True)  # noqa: T201 - the parent waits for it
    await asyncio.to_thread(sys.stdin.readline)
    began = time.monotonic()
    tasks = [asyncio.create_task(shipper.run()) for shipper in shippers]
    await asyncio.to_thread(sys.stdin.readline)
    seconds = time.monotonic() - began
    acknowledged = sum(shipper.acknowledged for shipper in shippers)
    over = [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    noted = {"acknowledged": acknowledged, "seconds": seconds, "over": [repr(fault) for fault in over]}
    _write(plan["out"], noted)


def _write(path: str, noted: object) -> None:
    Path(path).write_text(json.dumps(noted))


if __name__ == "__main__":
    uvloop.run(_run(json.loads(Path(sys.argv[1]).read_text())))
