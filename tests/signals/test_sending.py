"""Our security events: pushed to a real receiver and polled from the door, signed by a key that is published."""

import asyncio
import contextlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import aiohttp
import jwt
import pytest
from aiohttp import web
from tests.config.test_collector_config import GOOD, write
from tests.fakes.centre import eventually
from tests.fakes.door_eyes import eyes_of
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.signal_key import SignalKey, SignalKeyError
from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.config import ConfigError, load_collector
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.outgoing_signals import SignalStream, outgoing
from leasehold_broker.domain.security_events import (
    CREDENTIAL_CHANGE,
    SESSION_REVOKED,
    VERIFICATION,
    OpaqueMeans,
    SignalRule,
    read_security_event,
    selector_of,
)
from leasehold_broker.domain.selector_words import to_words
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.fleet_revocations import FleetRevocations
from leasehold_broker.wiring.collector_signals import signals
from leasehold_broker.wiring.collector_store import OpenStore
from leasehold_broker.wiring.supervision import Supervisor

WALL_MS = 1_795_000_000_000
AGENT = Subject("https://issuer.example", "agent-1")
STREAM = SignalStream(
    "siem", "https://collector.example", "https://siem.example", frozenset({SESSION_REVOKED, CREDENTIAL_CHANGE})
)
SEND = """
[signals]
address = "127.0.0.1:0"
issuer = "https://collector.example"
[[signals.send]]
name = "siem"
audience = "https://siem.example"
bearer_file = "bearer"
{more}
"""


def revoked(lease="leases/a", by="revocations/7") -> Event:
    """A lease that was revoked."""
    return Event(EventType.LEASE_REVOKED, WALL_MS, Outcome.ALLOWED, None, AGENT, lease, "", {"revocation": by})


def key_event(type_, **details) -> Event:
    """Something of a key."""
    return Event(type_, WALL_MS, Outcome.FAILED, details={"key": "anthropic-prod", **details})


class Receiver:
    """A receiver that is pushed to."""

    def __init__(self):
        """Takes everything."""
        self.tokens = []
        self.answers = []
        self.seen = []

    async def take(self, request):
        """RFC 8935."""
        self.seen.append((request.content_type, request.headers.get("Authorization")))
        token = (await request.read()).decode()
        status, body = self.answers.pop(0) if self.answers else (202, None)
        if status == 202:
            self.tokens.append(token)
            return web.Response(status=202)
        return web.Response(body=body if body is None or isinstance(body, bytes) else json.dumps(body), status=status)


@contextlib.asynccontextmanager
async def receiving():
    """It, on loopback; gives it and its address."""
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/events", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield receiver, f"http://127.0.0.1:{runner.addresses[0][1]}/events"
    finally:
        await runner.cleanup()


class World:
    """A collector that tells others, and its door."""

    def __init__(self, store, port, session):
        """Over these."""
        self.store = store
        self.emitter = Emitter()
        self.url = f"http://127.0.0.1:{port}"
        self.session = session
        self.bearer = {"Authorization": "Bearer door-token"}

    async def happen(self, *events):
        """These, in the log of a sidecar."""
        await self.store.append("sidecar-1", [self.emitter.emit(event) for event in events], WALL_MS)

    async def get(self, path, headers=None):
        """Status and JSON."""
        async with self.session.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def post(self, path, body, headers=None):
        """The same."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url + path, data=data, headers=headers) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def read(self, token):
        """Claims of a token, checked against the published key as a receiver does."""
        _, document = await self.get("/.well-known/ssf-configuration")
        assert document["jwks_uri"] == "https://collector.example/signals/jwks.json"
        _, keys = await self.get("/signals/jwks.json")
        header = jwt.get_unverified_header(token)
        assert header["typ"] == "secevent+jwt"
        key = next(jwt.PyJWK(one) for one in keys["keys"] if one["kid"] == header["kid"])
        return jwt.decode(
            token,
            key.key,
            ["RS256"],
            audience="https://siem.example",
            issuer=document["issuer"],
            options={"verify_iat": False},
        )


@contextlib.asynccontextmanager
async def telling(more="", folder=None, settings=SEND):
    """A collector's signals by a configuration file."""
    with tempfile.TemporaryDirectory(prefix="lh-") as name:
        folder = folder or Path(name)
        (folder / "bearer").touch(0o600)
        (folder / "bearer").write_text("door-token\n")
        (folder / "state").mkdir(exist_ok=True)
        config = load_collector(write(folder, GOOD + settings.format(more=more)))
        store = CollectorStore(folder / "c.db", "centre", f"c{len(list(folder.glob('life*')))}")
        (folder / f"life{len(list(folder.glob('life*')))}").touch()
        clock = SystemClock()
        issuer = FleetRevocations(Fleet(60), store, clock)
        try:
            async with (
                signals(
                    config.signals,
                    OpenStore(store),
                    issuer,
                    clock,
                    Supervisor(clock, store.record),
                    eyes_of(config, store),
                ) as opened,
                aiohttp.ClientSession() as session,
            ):
                yield World(store, opened.port, session)
        finally:
            await store.close()


@pytest.mark.parametrize(
    ("event", "kind", "payload"),
    [
        (revoked(), SESSION_REVOKED, {"initiating_entity": "admin", "reason_admin": {"en": "revocations/7"}}),
        (
            revoked(by="honeytoken ci"),
            SESSION_REVOKED,
            {"initiating_entity": "policy", "reason_admin": {"en": "honeytoken ci"}},
        ),
        (
            key_event(EventType.KEY_TAKEN_OUT),
            CREDENTIAL_CHANGE,
            {"change_type": "revoke", "credential_type": "api-key"},
        ),
        (key_event(EventType.KEY_ROTATION_DONE), CREDENTIAL_CHANGE, {"change_type": "update"}),
        (key_event(EventType.REVOCATION_ISSUED), CREDENTIAL_CHANGE, {"change_type": "revoke"}),
        (key_event(EventType.REVOCATION_ISSUED, lifts=3), None, {}),
        (key_event(EventType.KEY_READ), None, {}),
        (Event(EventType.REVOCATION_ISSUED, WALL_MS, Outcome.ALLOWED), None, {}),
        (Event(EventType.CALL_ADMITTED, WALL_MS, Outcome.ALLOWED, None, AGENT, "leases/a"), None, {}),
    ],
)
def test_what_is_told_of_what(event, kind, payload):
    """The shape of CAEP 1.0; our own receiver reads it, and would revoke the same."""
    claims = outgoing(event, "sidecar-1/e/1", WALL_MS, STREAM)
    if kind is None:
        assert claims is None
        return
    assert claims["events"][kind].items() >= payload.items()
    assert claims["events"][kind]["event_timestamp"] == WALL_MS // 1000
    assert outgoing(event, "sidecar-1/e/1", WALL_MS, STREAM) == claims
    assert outgoing(event, "sidecar-1/e/2", WALL_MS, STREAM)["jti"] != claims["jti"]
    other = outgoing(event, "sidecar-1/e/1", WALL_MS, replace(STREAM, name="other"))
    assert (other["txn"], other["jti"] == claims["jti"]) == (claims["txn"], False)
    means = OpaqueMeans.LEASE if kind == SESSION_REVOKED else OpaqueMeans.KEY
    rule = SignalRule("r", STREAM.issuer, STREAM.audience, {AGENT.issuer: AGENT.issuer}, opaque=means)
    selector = selector_of(read_security_event(claims, rule, Instant(WALL_MS, 0)), rule)
    if payload.get("change_type") == "update":
        assert selector is None
    else:
        assert to_words(selector) in ({"lease": "leases/a"}, {"key": "anthropic-prod"})


async def test_a_stream_is_pushed_in_order_once_and_through_a_restart():
    """From the log to a real receiver, with its bearer token; what happened while we were away is told then."""
    with tempfile.TemporaryDirectory(prefix="lh-") as name:
        folder = Path(name)
        async with receiving() as (receiver, url):
            more = f'push_url = "{url}"\npush_bearer_file = "bearer"'
            async with telling(more, folder) as world:
                await world.happen(revoked("leases/a"), key_event(EventType.KEY_TAKEN_OUT))
                await eventually(lambda: len(receiver.tokens) == 2)
                first = await world.read(receiver.tokens[0])
                assert first["sub_id"]["session"] == {"format": "opaque", "id": "leases/a"}
                assert first["sub_id"]["user"] == {"format": "iss_sub", "iss": AGENT.issuer, "sub": "agent-1"}
                kept = world.emitter
            async with telling(more, folder) as world:
                world.emitter = kept
                await world.happen(revoked("leases/b"))
                told = ""
                for _ in range(300):
                    # One whose place was not yet kept when we stopped may come again, before it.
                    last = await world.read(receiver.tokens[-1])
                    told = last["sub_id"].get("session", {}).get("id", "")
                    if told == "leases/b":
                        break
                    await asyncio.sleep(0.05)
                assert told == "leases/b"
        assert set(receiver.seen) == {("application/secevent+jwt", "Bearer door-token")}


async def test_a_receiver_that_fails_is_waited_for_and_a_wrong_token_is_given_up():
    """503 and an unknown key are tried again; invalid_request never: it holds up no other, and is an event."""
    async with receiving() as (receiver, url), telling(f'push_url = "{url}"') as world:
        receiver.answers = [
            (503, None),
            (400, {"err": "invalid_key", "description": "no"}),
            (400, {"err": "invalid_request", "description": "no"}),
        ]
        await world.happen(revoked("leases/a"), revoked("leases/b"))
        await eventually(lambda: len(receiver.tokens) == 1)
        told = await world.read(receiver.tokens[0])
        assert told["sub_id"]["session"]["id"] == "leases/b"
        stored = await world.store.page(EventFilter(type="signal.not_taken"), 0, 10)
        assert len(stored) == 1
        assert len(receiver.seen) == 4


async def test_an_error_that_cannot_be_read_is_one_without_a_code():
    """Bytes that are no text, and depth that ends a parser: the event is sent again until it is taken."""
    async with receiving() as (receiver, url), telling(f'push_url = "{url}"') as world:
        receiver.answers = [(400, b'{"err":"\xff"}'), (400, b'{"err":"a","x":' + b"[" * 20_000)]
        await world.happen(revoked())
        await eventually(lambda: len(receiver.tokens) == 1)
        assert len(receiver.seen) == 3


async def test_a_question_that_cannot_be_read_is_refused():
    """400, whatever is wrong with its JSON; the stream goes on."""
    async with telling() as world:
        for body in (b'{"ack":["\xff"]}', b'{"x":' + b"[" * 7_000, b'{"ack":' + b"[" * 7_000, b'{"ack":["\\ud800"]}'):
            for path in ("/signals/poll/siem", "/signals/verify"):
                assert (await world.post(path, body, world.bearer))[0] == 400
        assert (await world.post("/signals/poll/siem", {"returnImmediately": True}, world.bearer))[0] == 200


async def test_a_stream_is_polled_until_acknowledged():
    """RFC 8936: offered again until it is taken; refused ones are events; a restart offers what was not taken."""
    with tempfile.TemporaryDirectory(prefix="lh-") as name:
        folder = Path(name)
        async with telling(folder=folder) as world:
            await world.happen(*(revoked(f"leases/{number}") for number in range(4)))
            ask = {"maxEvents": 2, "returnImmediately": True}
            status, first = await world.post("/signals/poll/siem", ask, world.bearer)
            assert (status, len(first["sets"]), first["moreAvailable"]) == (200, 2, True)
            assert (await world.post("/signals/poll/siem", ask, world.bearer))[1] == first
            one, two = first["sets"]
            assert (await world.read(first["sets"][one]))["jti"] == one
            answer = {"ack": [one], "setErrs": {two: {"err": "invalid_request", "description": "no"}}}
            _, second = await world.post("/signals/poll/siem", ask | answer, world.bearer)
            assert set(second["sets"]).isdisjoint(first["sets"])
            three, four = second["sets"]
            await world.post("/signals/poll/siem", {"maxEvents": 0, "ack": [four]}, world.bearer)
            assert len(await world.store.page(EventFilter(type="signal.not_taken"), 0, 10)) == 1
        async with telling(folder=folder) as world:
            _, again = await world.post("/signals/poll/siem", ask, world.bearer)
            assert set(again["sets"]) == {three, four}
            _, done = await world.post("/signals/poll/siem", ask | {"ack": [three, four]}, world.bearer)
            assert done == {"sets": {}, "moreAvailable": False}


async def test_a_question_that_may_wait_is_answered_when_something_comes(monkeypatch):
    """RFC 8936, section 2.5: held until a token is there or the time is over; a second question beside it is not."""
    async with telling() as world, asyncio.TaskGroup() as asking:
        waits = asking.create_task(world.post("/signals/poll/siem", {"maxEvents": 5}, world.bearer))
        await world.happen(key_event(EventType.LEASE_REVOKED))  # of no lease: it is told to nobody
        await world.happen(revoked("leases/late"))
        status, answer = await waits
        [token] = answer["sets"].values()
        assert (status, (await world.read(token))["sub_id"]["session"]["id"]) == (200, "leases/late")
        await world.post("/signals/poll/siem", {"maxEvents": 0, "ack": list(answer["sets"])}, world.bearer)
        monkeypatch.setattr("leasehold_broker.collector.transmitter_door.LONG_POLL_SECONDS", 0.05)
        nothing = (200, {"sets": {}, "moreAvailable": False})
        assert await world.post("/signals/poll/siem", {}, world.bearer) == nothing
        monkeypatch.setattr("leasehold_broker.collector.transmitter_door.LONG_POLL_SECONDS", 600.0)
        assert await world.post("/signals/poll/siem", {"maxEvents": 0}, world.bearer) == nothing
        assert await world.post("/signals/poll/siem", {"returnImmediately": True}, world.bearer) == nothing


async def test_one_question_of_a_stream_waits_at_a_time(monkeypatch):
    """Whoever asks often holds no more of the door than whoever asks once."""
    monkeypatch.setattr("leasehold_broker.collector.transmitter_door.LONG_POLL_SECONDS", 600.0)
    async with telling() as world, asyncio.TaskGroup() as asking:
        waiting = {asking.create_task(world.post("/signals/poll/siem", {}, world.bearer)) for _ in range(5)}
        while len(waiting) > 1:
            answered, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert [one.result() for one in answered] == [(200, {"sets": {}, "moreAvailable": False})] * len(answered)
        await world.happen(revoked("leases/late"))
        [last] = waiting
        assert len((await last)[1]["sets"]) == 1


async def test_the_configuration_of_an_issuer_with_a_path_is_found():
    """SSF 1.0, section 7.2: the path stands behind the well-known one; a proxy may cut it off."""
    settings = SEND.replace("https://collector.example", "https://collector.example/tenant")
    async with telling(settings=settings) as world:
        for path in ("", "/tenant"):
            status, document = await world.get(f"/.well-known/ssf-configuration{path}")
            assert (status, document["issuer"]) == (200, "https://collector.example/tenant")
        assert document["jwks_uri"] == "https://collector.example/tenant/signals/jwks.json"


async def test_a_refused_bearer_token_is_told_apart_from_none():
    """RFC 6750, section 3.1: no code where nothing was shown."""
    async with telling() as world:
        for headers, challenge in (({}, "Bearer"), ({"Authorization": "Bearer x"}, 'Bearer error="invalid_token"')):
            async with world.session.post(world.url + "/signals/poll/siem", json={}, headers=headers) as answer:
                assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, challenge)


async def test_a_receiver_sees_its_own_stream_and_may_ask_for_a_verification():
    """Configuration, status and verification of the Shared Signals Framework; the wish goes through the log."""
    async with telling() as world:
        status, document = await world.get("/.well-known/ssf-configuration")
        assert status == 200
        assert document["delivery_methods_supported"] == ["urn:ietf:rfc:8935", "urn:ietf:rfc:8936"]
        _, [stream] = await world.get("/signals/streams", world.bearer)
        assert stream["delivery"] == {
            "method": "urn:ietf:rfc:8936",
            "endpoint_url": "https://collector.example/signals/poll/siem",
        }
        assert stream["events_delivered"] == sorted(STREAM.types)
        assert (await world.get("/signals/status?stream_id=siem", world.bearer))[1]["status"] == "enabled"
        wish = {"stream_id": "siem", "state": "VGhpcw"}
        assert (await world.post("/signals/verify", wish, world.bearer))[0] == 204
        _, answer = await world.post("/signals/poll/siem", {}, world.bearer)
        [token] = answer["sets"].values()
        claims = await world.read(token)
        assert claims["events"] == {VERIFICATION: {"state": "VGhpcw"}}
        assert claims["sub_id"] == {"format": "opaque", "id": "siem"}


async def test_nobody_reads_a_stream_without_its_token():
    """401 without it, 404 for another's; nonsense is refused; keys and configuration are public."""
    async with telling() as world:
        for headers in (None, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic door-token"}):
            assert (await world.get("/signals/streams", headers))[0] == 401
            assert (await world.post("/signals/poll/siem", {}, headers))[0] == 401
            assert (await world.post("/signals/verify", {"stream_id": "siem"}, headers))[0] == 401
        assert (await world.get("/signals/status?stream_id=other", world.bearer))[0] == 404
        assert (await world.post("/signals/poll/other", {}, world.bearer))[0] == 404
        assert (await world.post("/signals/verify", {"stream_id": "other"}, world.bearer))[0] == 404
        assert (await world.post("/signals/verify", {"stream_id": "siem", "state": "x" * 300}, world.bearer))[0] == 400
        assert (await world.post("/signals/poll/siem", {"maxEvents": "all"}, world.bearer))[0] == 400
        _, keys = await world.get("/signals/jwks.json")
        assert "d" not in keys["keys"][0]


def test_the_key_is_made_once_and_kept_private(tmp_path):
    """The next start finds it; what is no such key is refused."""
    first = SignalKey(tmp_path / "signals.key")
    assert (tmp_path / "signals.key").stat().st_mode & 0o777 == 0o600
    assert SignalKey(tmp_path / "signals.key").jwks == first.jwks
    (tmp_path / "other").touch(0o600)
    (tmp_path / "other").write_text("no key")
    with pytest.raises(SignalKeyError, match="no RSA key"):
        SignalKey(tmp_path / "other")
    with pytest.raises(SignalKeyError, match="give every replica a copy"):
        SignalKey(tmp_path / "missing", shared=True)
    assert not (tmp_path / "missing").exists()
    assert SignalKey(tmp_path / "signals.key", shared=True).jwks == first.jwks


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('issuer = "https://collector.example"', ""), "issuer"),
        (('issuer = "https://collector.example"', 'issuer = "http://collector.example"'), "https"),
        (('address = "127.0.0.1:0"', ""), "address"),
        (('bearer_file = "bearer"', ""), "bearer_file"),
        (('name = "siem"', 'name = "s i"'), "name"),
        (('name = "siem"', 'name = "siem"\nevents = ["party"]'), "party"),
        (('name = "siem"', 'name = "siem"\npush_url = "http://far.example"'), "https"),
        (('audience = "https://siem.example"', 'audience = ""'), "audience"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, change, said):
    """Each refusal names the stream and the setting."""
    (tmp_path / "bearer").touch(0o600)
    with pytest.raises(ConfigError, match=said):
        load_collector(write(tmp_path, GOOD + SEND.format(more="").replace(*change)))
