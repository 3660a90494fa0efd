"""The order in which lives are shipped: whatever is lost, none begins there before the last one is whole."""

import asyncio
import contextlib

from tests.fakes.centre import MemoryOutbox
from tests.fakes.streams import Emitter

from leasehold.v1 import audit_service_pb2
from leasehold_broker.adapters.collector_link import LinkSettings
from leasehold_broker.adapters.collector_link.shipping import Shipment


class SlowCollector:
    """A channel and its one call, whose answers the test gives."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.taken: list[tuple[str, int]] = []
        self.arrived = asyncio.Event()
        self._answers: asyncio.Queue[audit_service_pb2.AppendEventsResponse] = asyncio.Queue()

    def stream_stream(self, *_: object, **__: object):
        """The method of the stub."""
        return lambda **_: self

    async def write(self, request: audit_service_pb2.AppendEventsRequest) -> None:
        """Take a batch."""
        self.taken += [(record.epoch, record.sequence) for record in request.records]
        self.arrived.set()

    def answer(self, epoch: str, sequence: int) -> None:
        """Acknowledge."""
        self._answers.put_nowait(audit_service_pb2.AppendEventsResponse(epoch=epoch, committed_sequence=sequence))

    async def __aiter__(self):
        """The answers."""
        while True:
            yield await self._answers.get()

    def cancel(self) -> None:
        """The call is over."""


async def test_a_life_is_shipped_once_the_life_before_is_acknowledged():
    """A lost batch of the old life would else come after the new one, look newer, and fence the new one for good."""
    outbox, collector = MemoryOutbox(), SlowCollector()
    outbox.put(*Emitter(epoch="e1").calls(3), *Emitter(epoch="e2").calls(2))
    settings = LinkSettings("unused", "sidecar-1", "prod", "1", None)
    shipment = Shipment(settings, outbox, lambda *_: None, None, lambda: 0.0)
    running = asyncio.create_task(shipment.run(collector))  # type: ignore[arg-type]
    async with asyncio.timeout(240):
        await collector.arrived.wait()
        await asyncio.sleep(0.2)
        assert collector.taken == [("e1", 1), ("e1", 2), ("e1", 3)]
        collector.arrived.clear()
        collector.answer("e1", 3)
        await collector.arrived.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert collector.taken[3:] == [("e2", 1), ("e2", 2)]
