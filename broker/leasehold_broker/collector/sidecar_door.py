"""SidecarService and AuditIngestService: what sidecars send and are sent. Words in, words out; bounds on waiting."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import cast

import structlog

from leasehold.v1 import audit_service_pb2, sidecar_service_pb2
from leasehold_broker.collector.access import Sidecars
from leasehold_broker.domain.reasons import Refusal, field_invalid
from leasehold_broker.domain.sync import Push
from leasehold_broker.flows.ingest_events import IngestEvents
from leasehold_broker.flows.loop_share import LoopShare
from leasehold_broker.flows.sync_sidecar import SyncSession, SyncSidecar
from leasehold_broker.rpc.caller import CallContext
from leasehold_broker.rpc.server import Handlers
from leasehold_broker.wire.records import records_from_proto
from leasehold_broker.wire.sync import message_from_proto, push_to_proto

SYNC_SERVICE = sidecar_service_pb2.DESCRIPTOR.services_by_name["SidecarService"]
INGEST_SERVICE = audit_service_pb2.DESCRIPTOR.services_by_name["AuditIngestService"]

HELLO_SECONDS_MAX = 10.0
RECORDS_A_TURN = 200
"""Of all streams together in one turn of the loop: a full batch, some milliseconds."""
MESSAGE_BYTES_MAX = 1024 * 1024
"""Message limit for the collector's server: a batch may hold one large event, a page many."""

_log = structlog.get_logger("leasehold.collector")

_Request = sidecar_service_pb2.SyncStateRequest
_Response = sidecar_service_pb2.SyncStateResponse


class SidecarDoor:
    """Handlers of both services."""

    def __init__(
        self,
        sync: SyncSidecar,
        ingest: IngestEvents,
        sidecars: Sidecars,
        session_seconds_max: float,
        check: Callable[[str], None] = lambda _name: None,
    ) -> None:
        """Call these flows.

        Args:
            sync: the flow behind SyncState.
            ingest: the flow behind AppendEvents.
            sidecars: tells which sidecar an identity is.
            check: raises a Refusal for a sidecar that may not speak now.
            session_seconds_max: a stream ends after this, or when the token it was opened with ends, so that every
                sidecar shows a fresh one.
        """
        self._sync = sync
        self._ingest = ingest
        self._sidecars = sidecars
        self._seconds_max = session_seconds_max
        self._check = check
        self._share = LoopShare(RECORDS_A_TURN)

    def sync_handlers(self) -> Handlers:
        """Of SidecarService."""
        return {"SyncState": self.sync_state}

    def ingest_handlers(self) -> Handlers:
        """Of AuditIngestService."""
        return {"AppendEvents": self.append_events}

    async def sync_state(self, requests: AsyncIterator[_Request], call: CallContext) -> AsyncIterator[_Response]:
        """One session: revocations and authority to the sidecar, acknowledgements from it."""
        name = self._sidecars.name_of(call.identity)
        self._check(name)
        try:
            async with asyncio.timeout(HELLO_SECONDS_MAX):
                first = await anext(requests)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise field_invalid("hello", f"did not come within {HELLO_SECONDS_MAX:g} s") from None
        session = await self._sync.open(name, message_from_proto(first), self._seconds_left(call))
        _log.info("sidecar connected", sidecar=name, request_id=call.request_id)
        reader = asyncio.create_task(_read(requests, session))
        try:
            pushes = cast("AsyncGenerator[Push]", session.pushes())
            async with aclosing(pushes):
                async for push in pushes:
                    yield push_to_proto(push)
        finally:
            session.close()
            reader.cancel()
            await asyncio.wait([reader])
            _log.info("sidecar disconnected", sidecar=name, request_id=call.request_id)

    async def append_events(
        self, requests: AsyncIterator[audit_service_pb2.AppendEventsRequest], call: CallContext
    ) -> AsyncIterator[audit_service_pb2.AppendEventsResponse]:
        """Store batch after batch; each answer says up to where it is synced."""
        name = self._sidecars.name_of(call.identity)
        ends_at = asyncio.get_running_loop().time() + self._seconds_left(call)
        while True:
            try:
                async with asyncio.timeout_at(ends_at) as age:
                    request = await anext(requests)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if age.expired():
                    return
                raise
            self._check(name)
            await self._share.take(len(request.records))
            records = records_from_proto(request.records)
            epoch, sequence = await self._ingest.run(name, records)
            yield audit_service_pb2.AppendEventsResponse(epoch=epoch, committed_sequence=sequence)

    def _seconds_left(self, call: CallContext) -> float:
        left = (call.identity.expires_wall_ms - call.now.wall_ms) / 1000
        return max(0.0, min(self._seconds_max, left))


async def _read(requests: AsyncIterator[_Request], session: SyncSession) -> None:
    """Hand what the sidecar says to its session until it says no more; a session never goes on that is not read."""
    try:
        async for request in requests:
            message = message_from_proto(request)
            if message.hello is not None:
                session.end(field_invalid("hello", "may be on the first message only"))
                return
            await session.heard(message)
    except Refusal as refusal:
        session.end(refusal)
    except Exception as fault:  # noqa: BLE001 - a task's border: whatever gRPC raises when the transport breaks
        _log.info("sidecar session broke off", fault=type(fault).__name__)
    finally:  # also of a cancellation that nobody here asked for: its pushes would go on, and answer nothing
        session.end()
