"""Security events of other systems, pushed to a real server or fetched from one: what each means, what is refused."""

import asyncio
import contextlib
import json
import ssl
import tempfile
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.config.test_collector_config import GOOD, write
from tests.fakes.centre import eventually
from tests.fakes.certificates import Authority
from tests.fakes.door_eyes import eyes_of
from tests.fakes.issuer import jwk, jwks, rsa_key, sign

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.config import ConfigError, load_collector
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.security_events import SecurityEvent, SetRefusedError, SignalRule
from leasehold_broker.domain.selector_words import to_words
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.fleet_revocations import FleetRevocations
from leasehold_broker.flows.receive_signals import ReceiveSignals
from leasehold_broker.wire.event_body import decode_event
from leasehold_broker.wiring.collector_signals import signals
from leasehold_broker.wiring.collector_store import OpenStore
from leasehold_broker.wiring.supervision import Supervisor

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "signals" / "events.json").read_text())["cases"]
SESSION = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
AGENT = {"format": "iss_sub", "iss": "https://idp.example/", "sub": "agent-1"}
KEY = rsa_key("signals")
MEDIA = {"Content-Type": "application/secevent+jwt", "Accept": "application/json"}
RULE = """
[signals]
address = "127.0.0.1:0"
[[signals.receive]]
name = "idp"
issuer = "https://idp.example/"
audience = "https://collector.example/"
jwks_file = "keys.json"
subject_issuers = {{ "https://idp.example/" = "https://issuer.example" }}
email_issuer = "https://issuer.example"
{more}
"""


def claims(**changes) -> dict:
    """Claims of a good token; None leaves one out."""
    good = {
        "iss": "https://idp.example/",
        "aud": "https://collector.example/",
        "jti": "jti-1",
        "iat": int(time.time()),
        "sub_id": AGENT,
        "events": {SESSION: {"event_timestamp": 1795000000}},
    } | changes
    return {name: value for name, value in good.items() if value is not None}


def token(key=KEY, typ="secevent+jwt", kid="k", **changes) -> str:
    """A signed token."""
    return sign(claims(**changes), key, "RS256", kid=kid, typ=typ)


class World:
    """A collector's signals over a store, and whoever sends them."""

    def __init__(self, store, port, session):
        """Over these."""
        self.store = store
        self.port = port
        self.session = session

    async def push(self, body, name="idp", headers=None):
        """Status, and what the answer says."""
        url = f"http://127.0.0.1:{self.port}/signals/{name}"
        async with self.session.post(url, data=body, headers=MEDIA | (headers or {})) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text and answer.content_type == "application/json" else text

    async def revoked(self):
        """Selectors of all revocations, oldest first."""
        return [to_words(entry.selector) for entry in reversed(await self.store.before(1 << 62, 100))]

    async def logged(self, kind):
        """Events of a type."""
        return [decode_event(one.record.body) for one in await self.store.page(EventFilter(type=kind), 0, 100)]


@contextlib.asynccontextmanager
async def listening(more="", rule=RULE, leaf=None):
    """A collector's signals by a configuration file."""
    with tempfile.TemporaryDirectory(prefix="lh-") as name:
        folder = Path(name)
        (folder / "keys.json").write_bytes(jwks(jwk(KEY, kid="k", use="sig", alg="RS256")))
        (folder / "keys.json").chmod(0o644)
        (folder / "bearer").touch(0o600)
        (folder / "bearer").write_text("door-token\n")
        if leaf is not None:
            leaf.files(folder, "door")
        config = load_collector(write(folder, GOOD + rule.format(more=more)))
        store = CollectorStore(folder / "c.db", "centre", "c1")
        clock = SystemClock()
        issuer = FleetRevocations(Fleet(60), store, clock)
        tasks = Supervisor(clock, store.record)
        try:
            async with (
                asyncio.timeout(240),
                signals(config.signals, OpenStore(store), issuer, clock, tasks, eyes_of(config, store)) as opened,
                aiohttp.ClientSession() as session,
            ):
                yield World(store, opened.port, session)
        finally:
            await store.close()


@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
async def test_each_event_means_what_its_specification_says(case):
    """Revokes whom it names, or changes nothing, or is refused with the code of RFC 8935; always in the log."""
    async with listening(f'opaque = "{case["opaque"]}"' if "opaque" in case else "") as world:
        given = token(sub_id=case.get("sub_id"), events={case["type"]: case["event"]})
        status, said = await world.push(given)
        if "error" in case:
            assert (status, said["err"]) == (400, case["error"])
            assert await world.revoked() == []
            assert len(await world.logged("signal.refused")) == 1
        else:
            assert (status, said) == (202, "")
            assert await world.revoked() == ([case["revokes"]] if case["revokes"] else [])
            [event] = await world.logged("signal.received")
            assert event.details["token_id"] == "jti-1"
            assert event.details.get("selector") == case["revokes"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"iss": "https://evil.example/"}, "invalid_issuer"),
        ({"iss": None}, "invalid_issuer"),
        ({"aud": "https://elsewhere.example/"}, "invalid_audience"),
        ({"aud": ["https://a.example/"]}, "invalid_audience"),
        ({"aud": None}, "invalid_audience"),
        ({"jti": None}, "invalid_request"),
        ({"jti": ""}, "invalid_request"),
        ({"jti": "x" * 257}, "invalid_request"),
        ({"iat": None}, "invalid_request"),
        ({"iat": True}, "invalid_request"),
        ({"iat": "1"}, "invalid_request"),
        ({"iat": 4_000_000_000}, "invalid_request"),
        ({"iat": 1_000_000_000}, "invalid_request"),
        ({"exp": 4_000_000_000}, "invalid_request"),
        ({"sub": "agent-1"}, "invalid_request"),
        ({"events": {}}, "invalid_request"),
        ({"events": {SESSION: {}, "urn:x": {}}}, "invalid_request"),
        ({"events": {SESSION: "yes"}}, "invalid_request"),
        ({"events": None}, "invalid_request"),
        ({"sub_id": "agent-1"}, "invalid_request"),
        ({"typ": "jwt"}, "invalid_request"),
        ({"kid": "other"}, "invalid_key"),
        ({"key": rsa_key("stranger")}, "invalid_key"),
    ],
)
async def test_a_token_with_anything_wrong_revokes_nothing(changes, error):
    """And the transmitter is told which kind of wrong, without anything of the token."""
    async with listening() as world:
        status, said = await world.push(token(**changes))
        assert (status, said["err"]) == (400, error)
        assert await world.revoked() == []
        [event] = await world.logged("signal.refused")
        assert event.details["error"] == error


@pytest.mark.parametrize("body", ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", b"\xff" * 20])
async def test_what_is_no_token_is_refused(body):
    """Also one without a signature, and bytes."""
    async with listening() as world:
        status, said = await world.push(body)
        assert (status, said["err"]) == (400, "invalid_request")


async def test_the_same_event_has_one_effect_also_after_a_restart():
    """A copy of an event brings back nothing; `jti` with another content is refused."""
    async with listening() as world:
        given = token()
        for _ in range(3):
            assert (await world.push(given))[0] == 202
        [entry] = await world.store.before(1 << 62, 10)
        assert (entry.order.block_new, entry.revoked_by) == (True, "signals of idp")
        assert len(await world.logged("signal.received")) == 1
        issuer, clock = FleetRevocations(Fleet(60), world.store, SystemClock()), SystemClock()
        after = ReceiveSignals(issuer, world.store, clock)
        rule = SignalRule("idp", "https://idp.example/", "a", {"https://idp.example/": "https://issuer.example"})
        await after.take(SecurityEvent("jti-1", "https://idp.example/", SESSION, AGENT, {}), rule)
        other = AGENT | {"sub": "agent-2"}
        fresh = ReceiveSignals(issuer, world.store, clock)
        with pytest.raises(SetRefusedError):
            await fresh.take(SecurityEvent("jti-1", "https://idp.example/", SESSION, other, {}), rule)
        assert len(await world.revoked()) == 1


async def test_a_transmitter_that_goes_wild_is_asked_to_come_back_later():
    """Within the hour no more than its bound; what is not taken is not lost: it is sent again."""
    async with listening("revocations_per_hour_max = 2\nblock = false") as world:
        answers = [
            (await world.push(token(jti=f"jti-{number}", sub_id=AGENT | {"sub": f"a-{number}"})))[0]
            for number in range(4)
        ]
        assert answers == [202, 202, 503, 503]
        assert len(await world.revoked()) == 2
        assert not (await world.store.before(1 << 62, 1))[0].order.block_new


async def test_the_door_asks_for_its_bearer_token_and_knows_only_its_rules():
    """401 with a challenge; 404 for another name; no other method, no other media type, no large body."""
    async with listening('bearer_file = "bearer"') as world:
        status, said = await world.push(token())
        assert (status, said["err"]) == (401, "authentication_failed")
        assert (await world.push(token(), headers={"Authorization": "Bearer wrong"}))[0] == 401
        assert (await world.push(token(), headers={"Authorization": "Bearer door-token"}))[0] == 202
        good = {"Authorization": "Bearer door-token"}
        assert (await world.push(token(), name="other", headers=good))[0] == 404
        assert (await world.push(token(), headers=good | {"Content-Type": "application/json"}))[0] == 400
        assert (await world.push("x" * 17_000, headers=good))[0] in {400, 413}
        async with world.session.get(f"http://127.0.0.1:{world.port}/signals/idp") as answer:
            assert answer.status == 405
        assert len(await world.revoked()) == 1


async def test_bytes_that_are_no_text_are_no_bearer_token():
    """A refusal like any, and in the log: not a fault of ours that nobody counts."""
    async with listening('bearer_file = "bearer"') as world:
        head = b"POST /signals/idp HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n"
        for shown in (b"\xff", b"door-token\xff", b"\xed\xa0\x80"):
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(head + b"authorization: Bearer " + shown + b"\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
            writer.close()
            await writer.wait_closed()
        assert len(await world.logged("signal.refused")) == 3


async def test_what_cannot_be_recorded_is_not_acknowledged(monkeypatch):
    """A disk that fails: 503, so that the transmitter sends it again."""
    async with listening() as world:

        async def fails(*_):
            raise Refusal(Reason.STORE_UNAVAILABLE, "no")

        with monkeypatch.context() as patch:
            patch.setattr(world.store, "issue_all", fails)
            assert (await world.push(token()))[0] == 503
            patch.setattr(world.store, "record", fails)
            assert (await world.push("x"))[0] == 503
        assert (await world.push(token()))[0] == 202
        assert len(await world.revoked()) == 1


async def test_events_are_fetched_acknowledged_after_they_are_durable_and_errors_told():
    """RFC 8936 against a real server: taken ones are acknowledged with the next question, wrong ones told why."""
    pending = {
        "jti-1": token(),
        "jti-2": token(jti="jti-2", aud="other"),
        "jti-3": token(jti="jti-3", sub_id=AGENT | {"sub": "b"}),
    }
    questions = []

    async def poll(request):
        assert request.headers["Authorization"] == "Bearer door-token"
        question = await request.json()
        questions.append(question)
        for name in (*question.get("ack", []), *question.get("setErrs", {})):
            pending.pop(name)
        sets = dict(list(pending.items())[: question["maxEvents"]])
        return web.json_response({"sets": sets, "moreAvailable": False})

    app = web.Application()
    app.router.add_post("/poll", poll)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/poll"
    rule = RULE.replace('[signals]\naddress = "127.0.0.1:0"\n', "")
    try:
        async with listening(f'poll_url = "{url}"\npoll_bearer_file = "bearer"\npoll_seconds = 1.0', rule) as world:
            await eventually(lambda: not pending)
            assert world.port == 0
            assert len(await world.revoked()) == 2
    finally:
        await runner.cleanup()
    assert questions[0] == {"maxEvents": 5, "returnImmediately": True, "ack": []}
    assert sorted(questions[1]["ack"]) == ["jti-1", "jti-3"]
    assert questions[1]["setErrs"]["jti-2"]["err"] == "invalid_audience"


async def test_an_answer_that_cannot_be_read_is_asked_for_again():
    """Bytes that are no text, and depth that ends a parser: the next answer is taken all the same."""
    answers = [b'{"sets":{"a":"\xff"}}', b'{"sets":' + b"[" * 20_000, b'{"sets":{"a":' + b'{"a":' * 9_000]
    pending = {"jti-1": token()}

    async def poll(request):
        for name in (await request.json())["ack"]:
            pending.pop(name)
        return web.Response(body=answers.pop() if answers else json.dumps({"sets": pending}).encode())

    app = web.Application()
    app.router.add_post("/poll", poll)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rule = RULE.replace('[signals]\naddress = "127.0.0.1:0"\n', "")
    more = f'poll_url = "http://127.0.0.1:{runner.addresses[0][1]}/poll"\npoll_seconds = 1.0'
    try:
        async with listening(more, rule) as world:
            await eventually(lambda: not pending)
            assert len(await world.revoked()) == 1
    finally:
        await runner.cleanup()


async def test_over_tls():
    """Beyond this machine the door speaks TLS alone, with its own certificate."""
    authority = Authority()
    tls = '[signals.tls]\ncertificate = "door.pem"\nprivate_key = "door.key"\n[[signals.receive]]'
    async with listening(rule=RULE.replace("[[signals.receive]]", tls), leaf=authority.issue()) as world:
        context = ssl.create_default_context(cadata=authority.pem.decode())
        url = f"https://localhost:{world.port}/signals/idp"
        async with world.session.post(url, data=token(), headers=MEDIA, ssl=context) as answer:
            assert answer.status == 202
        with pytest.raises(aiohttp.ClientError):
            await world.push(token(jti="plain"))
        assert len(await world.revoked()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('audience = "https://collector.example/"', 'audience = "x"\nevents = ["session-revoked", "party"]'), "party"),
        (('address = "127.0.0.1:0"', 'address = "10.0.0.1:8791"'), "TLS"),
        (('address = "127.0.0.1:0"', 'address = ""'), "needs an address"),
        (('jwks_file = "keys.json"', ""), "idp"),
        (('name = "idp"', 'name = "I d"'), "name"),
        (('email_issuer = "https://issuer.example"', 'opaque = "subject"\nblock = "no"'), "block"),
        (('name = "idp"', 'name = "idp"\nblock_seconds = -1'), "block_seconds"),
        (('name = "idp"', 'name = "idp"\npoll_url = "http://far.example/poll"'), "https"),
        (('name = "idp"', 'name = "idp"\nalgorithms = ["none"]'), "none"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, change, said):
    """Each refusal names the rule and the setting."""
    (tmp_path / "keys.json").write_bytes(b'{"keys": []}')
    text = RULE.format(more="").replace(*change)
    with pytest.raises(ConfigError, match=said):
        load_collector(write(tmp_path, GOOD + text))
