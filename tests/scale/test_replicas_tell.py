"""Alerts and findings where replicas follow one log: told by one, by the next when it dies, never moved back."""

import asyncio
import json
import tempfile
import threading
from pathlib import Path

import pytest
from tests.fakes.engines import PostgresEngine
from tests.fakes.receivers import HttpReceiver
from tests.fakes.rotating_replicas import RotatingReplicas

from leasehold_broker.adapters.postgres_collector import leadership
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.flows.send_alerts import AlertRule, SendAlerts
from leasehold_broker.wire.event_body import decode_event

WAIT_SECONDS = 60
pytestmark = [pytest.mark.timeout(240)]


def taken_out(key):
    """An event that alerts."""
    return Event(EventType.KEY_TAKEN_OUT, 5, Outcome.FAILED, details={"key": key, "environment": "prod"})


class Remembering:
    """Implements `AlertEndpoint`."""

    def __init__(self):
        """Nothing was sent."""
        self.sent = []
        self.go = asyncio.Event()
        self.go.set()
        self.reached = asyncio.Event()

    async def send(self, alert):
        """See the port; waits until it may."""
        self.sent.append(alert.key)
        self.reached.set()
        await self.go.wait()

    async def close(self):
        """See the port."""


@pytest.mark.parametrize("taken", [True, False])
async def test_a_sender_that_was_overtaken_moves_no_place_and_tells_no_more(postgres, taken):
    """Frozen after the endpoint has it, or before: the next tells by the same key; the first goes on behind it."""
    engine = PostgresEngine(postgres)
    async with engine.open("a1", stream="centre-a") as a, engine.open("b1", stream="centre-b") as b:
        slow, quick = Remembering(), Remembering()
        first = SendAlerts(AlertRule("pager", retry_first_seconds=0.01), slow, a, a, decode_event)
        await first.start()
        second = SendAlerts(AlertRule("pager", retry_first_seconds=0.01), quick, b, b, decode_event)
        slow.go.clear()
        await a.record(taken_out("one"))
        running = asyncio.create_task(first.run())
        await slow.reached.wait()
        if not taken:
            slow.sent.clear()
        await second.start()
        await second.step()
        place = (await b.follower("alerts/pager")).position
        slow.go.set()
        async with asyncio.timeout(WAIT_SECONDS):
            while not first.state.failures:  # noqa: ASYNC110 - it learns that it was overtaken
                await asyncio.sleep(0.01)
            await a.record(taken_out("two"))
            while "key.taken_out/two" not in " ".join(slow.sent):  # noqa: ASYNC110 - it leads again
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert [key.split()[0] for key in quick.sent] == ["key.taken_out/one"]
        assert len(slow.sent) == 1 + taken, slow.sent
        assert (await b.follower("alerts/pager")).position >= place


async def test_a_frozen_leader_is_followed_by_another(postgres, monkeypatch):
    """Its process says nothing though its connection lives: the server ends its session, and with it its lead."""
    monkeypatch.setattr(leadership, "SILENT_SECONDS_MAX", 1.0)
    engine = PostgresEngine(postgres)
    async with engine.open("a1", stream="centre-a") as a, engine.open("b1", stream="centre-b") as b:
        led, led_too = asyncio.Event(), asyncio.Event()

        async def duty(which):
            which.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(leadership, "ALIVE_SECONDS", 10_000.0)
        frozen = asyncio.create_task(a.leadership.lead("alerts pager", lambda: duty(led)))
        await led.wait()
        other = asyncio.create_task(b.leadership.lead("alerts pager", lambda: duty(led_too)))
        async with asyncio.timeout(WAIT_SECONDS):
            await led_too.wait()
        for task in (frozen, other):
            task.cancel()
        await asyncio.gather(frozen, other, return_exceptions=True)


async def test_a_finding_that_two_have_made_is_recorded_once(postgres):
    """Both looked at one page; the later one's transaction is refused, with its events."""
    engine = PostgresEngine(postgres)
    async with engine.open("a1", stream="centre-a") as a, engine.open("b1", stream="centre-b") as b:
        found = Event(EventType.FINDING_ODD_HOUR, 5, Outcome.ALLOWED)
        await a.advance("anomalies", 0, {})
        results = await asyncio.gather(
            a.advance("anomalies", 1, {}, [found], since=0),
            b.advance("anomalies", 1, {}, [found], since=0),
            return_exceptions=True,
        )
        refused = [each for each in results if isinstance(each, Refusal)]
        assert [each.reason for each in refused] == [Reason.CONCURRENT_UPDATE]
        assert a.last_position() + b.last_position() >= 1
        async with asyncio.timeout(WAIT_SECONDS):
            await b.wait_for_more(0)
        assert b.last_position() == 1


@pytest.fixture
def world(postgres):
    """A pager, and two replicas that know it."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder, HttpReceiver() as pager:
        root = Path(folder)
        url = root / "pager.url"
        url.write_text(f"{pager.url}/in")
        url.chmod(0o600)
        more = f'[[alerts]]\nname = "pager"\nkind = "webhook"\nurl_file = "{url}"\n'
        yield pager, RotatingReplicas(root, pager.url, postgres, more=more)


def told(pager):
    """Keys of what the pager has."""
    return [json.loads(body)["data"]["key"] for _, _, body in list(pager.requests)]


def test_a_sender_that_is_killed_is_followed_and_the_key_is_the_same(world):
    """Kill -9 while the pager has the alert and has not answered: the other replica tells it again, by the same key."""
    pager, replicas = world

    async def record(key):
        async with replicas.engine.open(f"probe-{key}", stream="probe") as store:
            await store.record(taken_out(key))

    def until(count):
        over = threading.Event()
        for _ in range(WAIT_SECONDS * 20):
            if len(told(pager)) >= count:
                return
            over.wait(0.05)
        raise AssertionError(told(pager))

    with replicas.process("east") as east, replicas.process("west"):
        pager.hold.clear()
        asyncio.run(record("one"))
        assert pager.reached.wait(WAIT_SECONDS)
        east.kill()
        east.wait(30)
        pager.reached.clear()
        assert pager.reached.wait(WAIT_SECONDS)
        pager.hold.set()
        until(2)
        asyncio.run(record("two"))
        until(3)
    keys = [key for key in told(pager) if "taken_out" in key]
    assert [key.split()[0] for key in keys] == ["key.taken_out/one", "key.taken_out/one", "key.taken_out/two"]
    assert keys[0] == keys[1]
