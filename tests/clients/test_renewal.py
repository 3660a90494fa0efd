"""When leases are renewed, kept, and given up: the schedule on handed clocks, and the loops on the real wire."""

import asyncio
import threading
from dataclasses import replace

import grpc
import pytest

from leasehold import LeaseEnded, PreconditionFailed, Unavailable
from leasehold._renewal import WAIT_SECONDS_MAX, Reading, Renewal
from leasehold.aio import LeaseholdClient as AsyncClient


def at(now: float, offset: float = 0.0) -> Reading:
    """One reading."""
    return Reading(now, offset)


def renewal(ttl: float = 100, renew_after: float = 50) -> Renewal:
    """A lease from time 0, without jitter in its retries."""
    return Renewal(ttl, renew_after, at(0), chance=lambda: 1.0)


def test_renewal_is_due_when_the_broker_said():
    """It waits in pieces until renew_after has passed, whatever half of the life would be."""
    lease = renewal(renew_after=42)

    assert (
        lease.wait_seconds(at(0)),
        lease.wait_seconds(at(40)),
        lease.wait_seconds(at(42)),
    ) == (WAIT_SECONDS_MAX, 2.0, 0.0)


def test_a_sleep_of_the_machine_is_followed_by_a_renewal():
    """A jump between the clocks renews at once, once."""
    lease = renewal()

    assert (lease.wait_seconds(at(10, 300)), lease.wait_seconds(at(10, 300))) == (0.0, WAIT_SECONDS_MAX)


def test_a_lease_outlives_failed_renewals_until_its_end():
    """Failures back off, keep the lease, and only its own end ends it."""
    lease = renewal()
    lease.failed(Unavailable("away", reason="CENTRE_UNREACHABLE"), at(50))

    assert (lease.wait_seconds(at(50)), lease.lost) == (0.5, None)
    lease.failed(Unavailable("away", retry_after=7.0), at(51))
    assert lease.wait_seconds(at(51)) == 8.0
    assert lease.seconds_left(at(51)) == 49.0
    assert lease.wait_seconds(at(100)) is None
    assert lease.lost.reason == "LEASE_EXPIRED"
    assert "away" in lease.lost.message


def test_a_revoked_lease_is_given_up_at_once():
    """An answer that the lease is gone ends the schedule."""
    lease = renewal()
    lease.failed(LeaseEnded("gone", reason="LEASE_REVOKED"), at(50))

    assert (lease.wait_seconds(at(50)), lease.lost.reason, lease.seconds_left(at(50))) == (None, "LEASE_REVOKED", 0.0)


def test_the_longest_life_is_not_asked_for_again():
    """MAX_TTL_REACHED stops renewal and leaves the lease to its end."""
    lease = renewal()
    lease.failed(PreconditionFailed("enough", reason="MAX_TTL_REACHED"), at(50))

    assert (lease.wait_seconds(at(60)), lease.wait_seconds(at(95))) == (WAIT_SECONDS_MAX, 5.0)


def test_looking_does_not_put_renewal_off():
    """Reading a lease again and again cannot delay its renewal."""
    lease = renewal()
    for second in range(50):
        lease.looked(100 - second, at(second))

    assert lease.wait_seconds(at(50)) == 0.0


def test_a_lease_that_cannot_be_renewed_is_not():
    """renew_after of zero means: use it until it ends."""
    lease = renewal(ttl=8, renew_after=0)

    assert lease.wait_seconds(at(0)) == 8.0


def test_a_lease_is_renewed_in_the_background(client, leases):
    """Renewals go out by themselves, each with an id of its own, and stop with the lease."""
    leases.ttl, leases.renew_share = 60.0, 0.002
    with client.acquire(provider="anthropic") as lease:
        renewals = leases.wait_for("RenewLease", 3)
        token = lease.token.reveal()
    count = len(leases.requests("RenewLease"))

    assert len({request.request_id for request in renewals[:3]}) == 3
    assert token == "lhs_secret-1"
    with pytest.raises(AssertionError):
        leases.wait_for("RenewLease", count + 2, seconds=0.5)


def test_a_failed_renewal_is_repeated_and_the_lease_kept(client, leases):
    """The lease stays in use while renewal fails, and recovers."""
    leases.ttl, leases.renew_share = 30.0, 0.005
    leases.fail_next("RenewLease", grpc.StatusCode.INTERNAL)
    with client.acquire(provider="anthropic") as lease:
        leases.wait_for("RenewLease", 2)

        assert not lease.lost.is_set()
        assert lease.seconds_left > 25


def test_a_revoked_lease_is_reported_once(client, leases):
    """The callback hears of it once, with the reason; the event is set; release is quiet."""
    leases.ttl, leases.renew_share = 30.0, 0.005
    heard, told = [], threading.Event()

    def on_lost(info, error):
        heard.append((info.name, error.reason))
        told.set()

    with client.acquire(provider="anthropic", on_lost=on_lost) as lease:
        leases.revoke(lease.name)

        assert lease.lost.wait(60)
        assert told.wait(60)
    assert heard == [("leases/1", "LEASE_REVOKED")]
    assert lease.lost_because.reason == "LEASE_REVOKED"


def test_a_callback_that_raises_is_logged(client, leases, caplog):
    """A holder's own error in on_lost does not vanish."""
    leases.ttl, leases.renew_share = 30.0, 0.005

    def on_lost(info, error):
        raise KeyError

    lease = client.acquire(provider="anthropic", on_lost=on_lost)
    leases.revoke(lease.name)
    keeper = next(thread for thread in threading.enumerate() if thread.name.endswith(lease.name))
    keeper.join(60)

    assert "on_lost of leases/1 raised" in caplog.text


async def test_the_async_twin_renews_and_releases(running, leases, token_file):
    """The async handle renews by a task and releases at the end of its block."""
    leases.ttl, leases.renew_share = 60.0, 0.002
    async with AsyncClient(running.target, token_file) as client:
        async with client.acquire(provider="openai", budget="1") as lease:
            await asyncio.to_thread(leases.wait_for, "RenewLease", 2)
            leases.charge(lease.name, 7)

            assert await lease.remaining() == 999_993
            child = await lease.delegate(budget="0.1")
            assert lease.name == child.info.parent
            await child.release()
        assert lease.info.state == "released"
        assert [info async for info in client.leases()] == []


async def test_the_async_twin_retries_with_the_same_request_id(running, leases, token_file):
    """UNAVAILABLE is tried again with the same id."""
    leases.fail_next("AcquireLease", grpc.StatusCode.UNAVAILABLE, "STARTING", retry_after=0.01)
    async with AsyncClient(running.target, token_file) as client, client.acquire(provider="anthropic"):
        pass

    assert (
        len(leases.requests("AcquireLease")),
        len({request.request_id for request in leases.requests("AcquireLease")}),
    ) == (2, 1)


async def test_the_async_twin_hears_of_revocation(running, leases, token_file):
    """A watch ends with the lease and sets the event."""
    heard = []
    async with AsyncClient(running.target, token_file) as client:
        lease = await client.acquire(provider="anthropic", on_lost=lambda _, error: heard.append(error.reason))
        states = []
        async for info in lease.watch():
            states.append(info.state)
            leases.revoke(lease.name)
        await lease.close()

    assert (states, heard, lease.lost.is_set()) == (["active", "revoked"], ["LEASE_REVOKED"], True)


async def test_a_cancelled_block_still_releases(running, leases, token_file):
    """Cancelling the task that holds a lease does not leave the lease behind."""
    held = asyncio.Event()
    async with AsyncClient(running.target, token_file) as client:

        async def work() -> None:
            async with client.acquire(provider="anthropic"):
                held.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await held.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert len(leases.requests("ReleaseLease")) == 1


async def test_the_async_twin_takes_an_async_token(running, leases):
    """The workload token may come from an async callable, asked on each call."""
    asked = []

    async def token() -> str:
        asked.append(1)
        return "YQ.Yg.Yw"

    async with AsyncClient(running.target, token) as client:
        assert [info async for info in client.leases()] == []
        assert [info async for info in client.leases()] == []

    assert len(asked) == 2


async def test_the_async_twin_finds_a_restarted_server(leases, running, token_file):
    """A server that came back on the same path is found by a new channel."""
    async with AsyncClient(running.target, token_file, timeout_seconds=60) as client:
        assert [info async for info in client.leases()] == []
        await asyncio.to_thread(running.stop)
        patient, client.link.settings = client.link.settings, replace(client.link.settings, timeout_seconds=1.0)
        with pytest.raises(Unavailable):
            await client.get("leases/1")
        client.link.settings = patient
        running.start()

        assert [info async for info in client.leases()] == []
