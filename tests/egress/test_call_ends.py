"""How a call ends before its answer does, and that each end is settled once."""

import asyncio

import pytest
from tests.egress.answers import STREAM_HEAD, chunk, steps, unchunk
from tests.fakes.egress import GUARD_SECONDS, KEY, json_answer, running, until

from leasehold_broker.domain.call import CallEnd
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.egress.connection import Connection

REVOKED = Refusal(Reason.LEASE_REVOKED, "leases/one was revoked; ask the incident responders")


async def test_a_caller_that_leaves_while_waiting_is_noticed_at_once():
    """The upstream connection is dropped as soon as the caller is gone, not when the answer comes."""
    async with running() as world:
        never = asyncio.Event()
        world.origin.answer = steps(never)
        _, writer = await world.connect()
        writer.write(world.post())
        await world.origin.arrived.wait()
        writer.close()
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.sent) == (CallEnd.CLIENT_GONE, True)
        never.set()
        async with asyncio.timeout(GUARD_SECONDS):
            await world.origin.lost.wait()


async def test_a_caller_that_leaves_before_admission_ends_sends_nothing():
    """A caller that leaves while its hold becomes durable causes no upstream request; the hold is voided."""
    async with running() as world:
        world.calls.gate = asyncio.Event()
        _, writer = await world.connect()
        writer.write(world.post())
        await world.calls.admitting.wait()
        writer.close()
        await until(lambda: not world.server.connections)
        world.calls.gate.set()
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.sent) == (CallEnd.CLIENT_GONE, False)
        assert world.origin.requests == []


@pytest.mark.parametrize("length", range(0, 250, 7))
async def test_a_caller_that_leaves_at_any_byte_leaves_no_open_call(length):
    """However much came before the caller resets, what was admitted is settled, and at most one request sent."""
    async with running() as world:
        request = world.post()
        _, writer = await world.connect()
        writer.write(request[:length])
        await writer.drain()
        writer.transport.abort()
        if length >= len(request):
            await world.calls.outcome()
        await until(lambda: not world.server.connections)
        assert len(world.origin.requests) <= 1


async def test_a_caller_that_leaves_in_mid_stream_is_settled_with_what_was_seen():
    """Usage seen before the caller left is reported, as not final."""
    async with running() as world:
        never = asyncio.Event()
        world.origin.answer = steps(STREAM_HEAD, chunk(b"data: usage:5\n\n"), never)
        reader, writer = await world.connect()
        writer.write(world.post(b'{"model":"m","stream":true}'))
        await reader.readuntil(b"usage:5\n\n")
        writer.transport.abort()
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.usage.output_tokens, outcome.usage_final) == (CallEnd.CLIENT_GONE, 5, False)
        never.set()


async def test_a_revoked_stream_ends_with_the_vendors_error_event():
    """Cut between two events, the stream ends properly: with an event that says who cut it and why."""
    async with running() as world:
        never = asyncio.Event()
        world.origin.answer = steps(STREAM_HEAD, chunk(b"data: 1\n\n"), never)
        reader, writer = await world.connect()
        writer.write(world.post(b'{"model":"m","stream":true}', extra=b""))
        await reader.readuntil(b"data: 1\n\n")
        world.calls.cuts["call-0"](CallEnd.CUT_BY_REVOCATION, REVOKED)
        tail = await reader.readuntil(b"0\r\n\r\n")
        assert b"data: LEASE_REVOKED\n\n" in tail
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.sent) == (CallEnd.CUT_BY_REVOCATION, True)
        never.set()
        async with asyncio.timeout(GUARD_SECONDS):
            await world.origin.lost.wait()
        world.origin.answer = json_answer()
        writer.write(world.post(extra=b""))
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_a_stream_cut_inside_an_event_is_broken_off():
    """Cut in the middle of an event, nothing can be said: the connection is aborted without a last chunk."""
    async with running() as world:
        never = asyncio.Event()
        world.origin.answer = steps(STREAM_HEAD, chunk(b"data: 1\n\ndata: unfin"), never)
        reader, writer = await world.connect()
        writer.write(world.post(b'{"model":"m","stream":true}', extra=b""))
        await reader.readuntil(b"unfin")
        world.calls.cuts["call-0"](CallEnd.CUT_BY_REVOCATION, REVOKED)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readuntil(b"0\r\n\r\n")
        assert CallEnd.CUT_BY_REVOCATION is (await world.calls.outcome()).end
        never.set()


async def test_a_call_cut_while_it_waits_is_answered_as_a_refusal():
    """Cut before the answer's first byte, the caller gets the refusal itself, recorded like any other."""
    async with running() as world:
        never = asyncio.Event()
        world.origin.answer = steps(never)
        reader, writer = await world.connect()
        writer.write(world.post())
        await world.origin.arrived.wait()
        world.calls.cuts["call-0"](CallEnd.CUT_BY_REVOCATION, REVOKED)
        assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
        assert world.refusals.recorded[0] == (Reason.LEASE_REVOKED, "leases/one", "m")
        assert CallEnd.CUT_BY_REVOCATION is (await world.calls.outcome()).end
        never.set()


async def test_a_slow_reader_holds_the_provider_back_not_our_memory():
    """While the caller does not read, the upstream is paused: what was taken in stays far below what was offered."""
    async with running() as world:
        sent = 0

        async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(STREAM_HEAD)
            for _unused in range(2000):
                writer.write(chunk(b"x" * 65536))
                await writer.drain()
                sent += 65536
            writer.write(b"0\r\n\r\n")

        world.origin.answer = flood
        reader, writer = await world.connect()
        writer.transport.pause_reading()
        writer.write(world.post())
        last = -1
        while sent != last or not sent:
            last = sent
            await asyncio.sleep(0.3)
        assert world.server.parts.counts.relayed_bytes < 24 * 1024 * 1024
        (connection,) = world.server.connections
        assert connection._transport.get_write_buffer_size() < 1024 * 1024
        writer.transport.resume_reading()
        total = 0
        async with asyncio.timeout(GUARD_SECONDS):
            while data := await reader.read(1 << 20):
                total += len(data)
        assert total > 2000 * 65536
        assert CallEnd.FINISHED is (await world.calls.outcome()).end


async def test_a_caller_that_takes_nothing_is_given_up():
    """A caller that reads no byte for the stall time is cut, and its call settled as left."""
    async with running() as world:
        world.origin.answer = steps(STREAM_HEAD, *(chunk(b"x" * 65536) for _ in range(400)))
        _, writer = await world.connect()
        writer.transport.pause_reading()
        writer.write(world.post())
        await until(lambda: any(one._paused for one in world.server.connections))
        world.clock.push(world.server.parts.limits.stall_seconds)
        assert CallEnd.CLIENT_GONE is (await world.calls.outcome()).end


async def test_drain_lets_calls_finish_and_cuts_the_rest():
    """While draining, a call may finish within its time; what is left then is cut as such and settled."""
    async with running() as world:
        go, never = asyncio.Event(), asyncio.Event()
        world.origin.answer = steps(go, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        first, writer = await world.connect()
        writer.write(world.post(extra=b""))
        await world.origin.arrived.wait()
        world.origin.arrived.clear()
        world.origin.answer = steps(never)
        second, other = await world.connect()
        other.write(world.post(extra=b""))
        await world.origin.arrived.wait()
        idle, _ = await world.connect()
        draining = asyncio.get_running_loop().create_task(world.server.drain())
        assert await idle.read(-1) == b""
        go.set()
        assert unchunk(await first.read(-1)) == b"ok"
        world.clock.push(world.server.parts.limits.drain_seconds)
        assert (await second.readline()).startswith(b"HTTP/1.1 503 ")
        await draining
        assert CallEnd.FINISHED is (await world.calls.outcome("call-0")).end
        assert CallEnd.CUT_BY_DRAIN is (await world.calls.outcome("call-1")).end
        never.set()


async def test_a_cancelled_exchange_is_settled():
    """When a task is cancelled from outside in mid-call, the call is settled all the same and the caller cut off."""
    async with running() as world:
        never = asyncio.Event()
        world.origin.answer = steps(never)
        _, writer = await world.connect()
        writer.write(world.post())
        await world.origin.arrived.wait()
        for task in list(world.server._tasks):
            task.cancel()
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.sent) == (CallEnd.UNKNOWN, True)
        never.set()


async def test_a_fault_of_a_provider_module_does_not_leave_a_call_open(capsys):
    """A bug behind the port ends the connection and settles the call; the log names only the kind of fault."""
    async with running() as world:
        provider = world.server.parts.targets["fake"].provider

        def broken(*_: object) -> None:
            raise LookupError(KEY)

        provider.request = broken
        assert await world.exchange(world.post()) == b""
        assert not (await world.calls.outcome()).sent
        provider.__dict__.clear()
        provider.meter = broken
        answer = await world.exchange(world.post())
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert CallEnd.UPSTREAM_FAILED is (await world.calls.outcome("call-1")).end
        shown = capsys.readouterr()
        assert KEY not in shown.out + shown.err


async def test_a_drain_that_meets_a_call_before_admission_refuses_it(monkeypatch):
    """A call whose hold is being made durable when the sidecar stops is cut before a byte went upstream."""
    async with running() as world:
        world.calls.gate = asyncio.Event()
        reader, writer = await world.connect()
        writer.write(world.post())
        await world.calls.admitting.wait()
        cut, cutting = asyncio.Event(), Connection.cut
        monkeypatch.setattr(Connection, "cut", lambda one, *why: (cutting(one, *why), cut.set()))
        draining = asyncio.get_running_loop().create_task(world.server.drain())
        await until(lambda: world.server.draining)
        world.clock.push(world.server.parts.limits.drain_seconds)
        await cut.wait()
        world.calls.gate.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
        await draining
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.sent) == (CallEnd.CUT_BY_DRAIN, False)
        assert world.origin.requests == []


async def test_a_store_that_breaks_while_a_refusal_is_recorded_ends_the_connection():
    """A fault (not a refusal) of the log leaves nobody waiting."""
    async with running() as world:

        async def broken(*_: object) -> None:
            raise OSError("disk")

        world.server.parts.refusals.call_refused = broken
        assert await world.exchange(world.post(b"{}")) == b""
        assert await world.exchange(b"nonsense\r\n\r\n") == b""
