"""Many sidecars that ship what they have made before: python -m tests.bench.shippers SIDECARS EVENTS TARGET...

Each has a connection and a stream of its own, cuts its batches as a sidecar's link does, and keeps as many of them
unanswered. Says "ready", waits for a line, and says how long it was until the last answer, and its processor seconds.
"""

import asyncio
import sys
import time
from collections import deque

import grpc
from tests.fakes.streams import Emitter, call_event

from leasehold.v1 import audit_service_pb2
from leasehold_broker.adapters.collector_link.shipping import BATCH_RECORDS_MAX, WINDOW_BATCHES_MAX, first_batch
from leasehold_broker.cli.process import run_tuned
from leasehold_broker.ports.outbox import PendingRecord
from leasehold_broker.wire.records import record_to_proto

METHOD = "/leasehold.v1.AuditIngestService/AppendEvents"
LEASE_EVENTS = 50
"""A lease and its events: two of each call."""


def batches(name: str, events: int) -> list[tuple[bytes, int]]:
    """Requests as they go over the wire, each with the sequence that it ends with."""
    emitter = Emitter(name)
    pending: deque[PendingRecord] = deque()
    for number in range(1, events + 1):
        lease = f"leases/{name}-{number // LEASE_EVENTS}"
        pending.append(PendingRecord(number, emitter.emit(call_event(number, lease=lease, subject=f"agents/{name}"))))
    found = []
    while pending:
        batch = first_batch([pending[at] for at in range(min(len(pending), BATCH_RECORDS_MAX))])
        request = audit_service_pb2.AppendEventsRequest(records=[record_to_proto(one.record) for one in batch])
        found.append((request.SerializeToString(), batch[-1].position))
        for _ in batch:
            pending.popleft()
    return found


async def ship(target: str, name: str, own: list[tuple[bytes, int]]) -> None:
    """Send all, and wait for the last answer."""
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        answer_of = audit_service_pb2.AppendEventsResponse.FromString
        method = channel.stream_stream(METHOD, request_serializer=None, response_deserializer=answer_of)
        call = method(metadata=(("leasehold", "1"), ("authorization", f"Bearer {name}")))
        window = asyncio.Semaphore(WINDOW_BATCHES_MAX)

        async def send() -> None:
            for request, _ in own:
                await window.acquire()
                await call.write(request)

        sending = asyncio.create_task(send())
        for _, last in own:
            answer = await call.read()
            assert answer.committed_sequence == last
            window.release()
        await sending


async def main() -> None:
    """As the module says."""
    sidecars, events, targets = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    names = [f"sidecar-{number}" for number in range(1, sidecars + 1)]
    made = {name: batches(name, events // sidecars) for name in names}
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    used, began = time.process_time(), time.monotonic()
    await asyncio.gather(*(ship(targets[at % len(targets)], name, made[name]) for at, name in enumerate(names)))
    _say(f"{time.monotonic() - began} {time.process_time() - used}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run_tuned(main())
