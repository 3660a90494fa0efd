"""Ships the outbox. Owns batches, the window of unacknowledged ones, and trimming by cumulative answers."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from leasehold.v1 import audit_service_pb2, audit_service_pb2_grpc
from leasehold_broker.adapters.collector_link.settings import LinkSettings
from leasehold_broker.adapters.collector_link.streams import WRITE_FAILURES, LinkBrokenError, together, understood
from leasehold_broker.domain.audit_chain import ChainedRecord, broken_link
from leasehold_broker.ports.outbox import Outbox, PendingRecord
from leasehold_broker.wire.records import record_to_proto

BATCH_RECORDS_MAX = 200
BATCH_BYTES_MAX = 160 * 1024
"""So that records of a usual size fill a batch: a message costs what ten records cost, whatever is in it."""
WINDOW_BATCHES_MAX = 8
WOKEN_FOR_NOTHING_SECONDS = 0.05
GATHER_SECONDS = 0.025
"""How long the log at the collector may lag behind for the sake of larger batches."""
RECORD_OVERHEAD_BYTES = 192


class SpoolDamagedError(Exception):
    """A record that waits here is not what was written: it cannot be shipped, and nothing after it either."""


class Shipment:
    """One AppendEvents stream: from the oldest unacknowledged record until the collector ends it."""

    def __init__(
        self,
        settings: LinkSettings,
        outbox: Outbox,
        accepted: Callable[[int, ChainedRecord], None],
        after: ChainedRecord | None,
        rest_seconds: Callable[[], float],
    ) -> None:
        """Ship this outbox.

        Args:
            settings: as whom.
            outbox: what to ship.
            accepted: told how many records each answer acknowledged, and the last of them.
            after: the last record that an earlier stream of this process had acknowledged: the next one follows it.
            rest_seconds: how long a batch that is not full may wait, because the whole fleet has the same to tell.
        """
        self._settings = settings
        self._outbox = outbox
        self._accepted = accepted
        self._window: deque[PendingRecord] = deque()
        self._batches: deque[int] = deque()
        self._room = asyncio.Semaphore(WINDOW_BATCHES_MAX)
        self._last = after
        self._rest_seconds = rest_seconds
        self._sent = asyncio.Event()
        self._answered = asyncio.Event()

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Ship until the collector ends the stream in good order.

        Raises:
            grpc.aio.AioRpcError, LinkBrokenError, OSError (token), Refusal (outbox).
        """
        stub: Any = audit_service_pb2_grpc.AuditIngestServiceStub(channel)
        call: Any = stub.AppendEvents(metadata=await self._settings.metadata())
        try:
            await together(self._receive(call), self._send(call), self._watch())
        finally:
            call.cancel()

    async def _send(self, call: Any) -> None:
        position = 0
        woken = False
        while True:
            pending = await self._outbox.pending_after(position, BATCH_RECORDS_MAX)
            if not pending:
                await self._outbox.wait_for_more(position)
                if woken:  # for nothing: an outbox may err, a loop may not spin
                    await asyncio.sleep(WOKEN_FOR_NOTHING_SECONDS)
                woken = True
                continue
            woken = False
            rest_seconds = self._rest_seconds()
            if rest_seconds > 0 and len(pending) < BATCH_RECORDS_MAX:
                await asyncio.sleep(rest_seconds)
                continue
            batch = first_batch(pending)
            wrong = self._check(batch)
            if wrong is not None:
                batch = batch[: wrong[0]]
            if wrong is not None and not batch:
                await self._all_answered()
                raise SpoolDamagedError(wrong[1])
            if self._window and self._window[-1].record.epoch != batch[0].record.epoch:
                # A life begins there only once the life before is whole: else what comes late of that one would look
                # like a newer life, and fence this one for good.
                await self._all_answered()
            await self._room.acquire()
            position = batch[-1].position
            self._window.extend(batch)
            self._batches.append(position)
            self._sent.set()
            records = [record_to_proto(one.record) for one in batch]
            try:
                await call.write(audit_service_pb2.AppendEventsRequest(records=records))
            except WRITE_FAILURES:
                return
            if len(batch) == len(pending) < BATCH_RECORDS_MAX:
                # Nothing more waits: gather for a moment. A message for each event would cost more than the events.
                await asyncio.sleep(GATHER_SECONDS)

    def _check(self, batch: Sequence[PendingRecord]) -> tuple[int, str] | None:
        """Hold what the disk gave back against its own digests and order: how many are good, and what the next one is.

        The collector would refuse it anyway; found here, it is known whose disk it was.
        """
        for good, one in enumerate(batch):
            record, last = one.record, self._last
            if last is None or last.epoch != record.epoch:
                wrong = broken_link(record, record.sequence, record.previous_digest)
            else:
                wrong = broken_link(record, last.sequence + 1, last.digest)
            if wrong is not None:
                return good, f"epoch {record.epoch}: {wrong}"
            self._last = record
        return None

    async def _all_answered(self) -> None:
        while self._window:  # noqa: ASYNC110 - once in the life of a spool, or of a process
            await asyncio.sleep(WOKEN_FOR_NOTHING_SECONDS)

    async def _watch(self) -> None:
        """Idle is fine for as long as nothing waits for an answer."""
        while True:
            self._sent.clear()
            if not self._window:
                await self._sent.wait()
            self._answered.clear()
            try:
                async with asyncio.timeout(self._settings.answer_seconds_max):
                    await self._answered.wait()
            except TimeoutError:
                message = f"no acknowledgement within {self._settings.answer_seconds_max:g} s"
                raise LinkBrokenError(message) from None

    async def _receive(self, call: Any) -> None:
        async for received in call:
            answer = understood(received)
            last: PendingRecord | None = None
            count = 0
            while self._window and self._window[0].record.epoch == answer.epoch:
                if self._window[0].record.sequence > answer.committed_sequence:
                    break
                last, count = self._window.popleft(), count + 1
            if last is None:
                message = "the collector acknowledged what was not sent"
                raise LinkBrokenError(message)
            while self._batches and self._batches[0] <= last.position:
                self._batches.popleft()
                self._room.release()
            self._answered.set()
            # Before the outbox may forget it: a stream that starts anew has to know what its first record follows.
            self._accepted(count, last.record)
            await self._outbox.acknowledge(last.position)


def first_batch(pending: Sequence[PendingRecord]) -> Sequence[PendingRecord]:
    """The longest beginning of one epoch within the batch's bytes; at least one record."""
    size = 0
    epoch = pending[0].record.epoch
    for count, one in enumerate(pending):
        size += len(one.record.body) + RECORD_OVERHEAD_BYTES
        if count and (size > BATCH_BYTES_MAX or one.record.epoch != epoch):
            return pending[:count]
    return pending
