"""Either end of the link in hostile or broken hands: the other refuses, counts it, and goes on."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import grpc
import pytest
from tests.collector.test_link import revoke
from tests.fakes.centre import Centre, Sidecar, eventually
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.domain.sync import Hello, SyncMessage

NO_MESSAGE = b"\xff\xff\xff"
"""Bytes that protobuf cannot read."""


class Babbling(grpc.GenericRpcHandler):
    """A collector, or something on the way to it, that says what is no message and ends with what is no status."""

    def __init__(self) -> None:
        """Nothing said."""
        self.calls = 0

    def service(self, _: object) -> grpc.RpcMethodHandler:
        """Of whatever method."""
        return grpc.stream_stream_rpc_method_handler(self._babble)

    async def _babble(self, _: object, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        self.calls += 1
        if self.calls % 3:
            yield NO_MESSAGE
        context.set_trailing_metadata((("grpc-status-details-bin", NO_MESSAGE),))
        await context.abort(grpc.StatusCode.INTERNAL, "broken")


async def test_what_no_collector_would_say_ends_no_sidecar(tmp_path):
    """Bytes that are no message and a status that is none are failures as any other: the link goes on, and recovers."""
    async with asyncio.timeout(240), Sidecar(f"unix:{tmp_path / 'collector.sock'}") as sidecar:
        sidecar.emit(3)
        babbling, server = Babbling(), grpc.aio.server()
        server.add_generic_rpc_handlers((babbling,))
        server.add_insecure_port(sidecar.settings.target)
        await server.start()
        failures = sidecar.link.counters.failures
        await eventually(
            lambda: sidecar._task.done() or (failures.get("LINK_BROKEN", 0) > 3 and failures.get("INTERNAL", 0) > 3)
        )
        assert not sidecar._task.done()
        assert sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is not None
        await server.stop(None)
        async with Centre(tmp_path):
            await sidecar.outbox.empty()
            await eventually(lambda: sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None)


async def test_a_fault_that_nobody_foresaw_is_counted_and_the_link_goes_on(tmp_path):
    """A bug behind the sink ends one session, not the sidecar; what it could not apply is offered again."""
    async with Centre(tmp_path) as centre, Sidecar(centre.target) as sidecar, asyncio.timeout(240):
        await eventually(lambda: sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None)
        apply = sidecar.sink.apply

        async def fails(_: object) -> None:
            sidecar.sink.apply = apply
            raise TypeError

        sidecar.sink.apply = fails
        await revoke(centre)
        await eventually(lambda: sidecar._task.done() or sidecar.sink.applied_epoch() == 1)
        assert not sidecar._task.done()
        assert sidecar.link.counters.failures["FAULT"] == 1


async def test_a_session_whose_reading_is_given_up_is_not_pushed_to_any_more(tmp_path):
    """A cancellation that nobody asked for ends the reading: the session ends, too, and the sidecar connects anew."""
    async with (
        Centre(tmp_path, authority_seconds=600.0) as centre,
        Sidecar(centre.target) as sidecar,
        asyncio.timeout(240),
    ):
        await eventually(lambda: centre.fleet.connected_count() == 1)
        session = centre.sync._open["sidecar-1"]

        async def given_up(_: object) -> None:
            raise asyncio.CancelledError

        session.heard = given_up
        await revoke(centre)  # it tells that it has applied it
        await eventually(lambda: centre.sync._open["sidecar-1"] is not session)
        await sidecar.sink.reached(1)


async def test_a_sidecar_that_leaves_while_its_first_words_are_written_is_not_connected(tmp_path):
    """Nobody was handed the session, so whoever made it closes it: the fleet shows who is there."""
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        await revoke(centre)
        writing = asyncio.Event()
        keep = centre.sync._reports.run

        async def held(known, applied) -> None:
            if applied:
                writing.set()
                await asyncio.Event().wait()
            await keep(known, applied)

        centre.sync._reports.run = held
        first = SyncMessage(
            Hello("sidecar-1", "test", "0.0", str(uuid.uuid4())),
            1,
            (AppliedRevocation(1, 0, 0),),
            heartbeat=1,
            history=centre.store.history().digest_at(1),
        )
        opening = asyncio.create_task(centre.sync.open("sidecar-1", first, 60.0))
        await writing.wait()
        assert centre.fleet.connected_count() == 1
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        assert centre.fleet.connected_count() == 0


async def test_r3_who_is_expelled_and_goes_on_speaking_counts_as_gone(tmp_path):
    """It reads nothing, so that its stream cannot end, and beats: no revocation waits for it longer than for others."""
    clock = ManualClock()
    async with Centre(tmp_path, clock=clock, authority_seconds=30.0) as centre, asyncio.timeout(240):
        session = await centre.sync.open("sidecar-1", SyncMessage(Hello("sidecar-1", "", ""), 0, heartbeat=1), 3600.0)
        member = centre.fleet.members["sidecar-1"]
        centre.sync.expel("sidecar-1", Refusal(Reason.SIDECAR_BANNED, "banned"))
        await revoke(centre)
        for heartbeat in range(2, 7):
            clock.advance(7)
            await session.heard(SyncMessage(None, 0, heartbeat=heartbeat))
        assert centre.fleet.lapsed(member, clock.now())
        with pytest.raises(StopAsyncIteration):
            await anext(session.pushes())
        await session.heard(SyncMessage(None, 1, history=centre.store.history().digest_at(1)))
        assert member.known.applied_epoch == 1
        session.close()


async def test_who_is_expelled_is_told_what_is_revoked_and_answered_nothing_more(tmp_path):
    """An answer gives authority from when its heartbeat was sent: none is counted on here, so none is given."""
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        session = await centre.sync.open("sidecar-1", SyncMessage(Hello("sidecar-1", "", ""), 0, heartbeat=1), 3600.0)
        await revoke(centre)
        centre.sync.expel("sidecar-1", Refusal(Reason.SIDECAR_BANNED, "banned"))
        await session.heard(SyncMessage(None, 0, heartbeat=2))
        pushes = session.pushes()
        push = await anext(pushes)
        assert (push.revocation_epoch, push.answers) == (1, 1)
        with pytest.raises(Refusal, match="banned"):
            await anext(pushes)
        session.close()
