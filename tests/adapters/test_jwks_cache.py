"""The key cache against a real HTTP server on loopback, and its bounds against a source in memory."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web
from tests.fakes.issuer import ec_key, ed_key, jwk, jwks, rsa_key
from tests.fakes.key_source import MemoryKeySource
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.adapters.jwk_set import KeySetRefusedError, read_key_set
from leasehold_broker.adapters.jwks_cache import JwksCache
from leasehold_broker.adapters.jwks_sources import HttpKeySource, KeysNotFetchedError
from leasehold_broker.domain.issuer import IssuerKind, IssuerRule, KeySource, url_wrong
from leasehold_broker.domain.reasons import Reason, Refusal

RULE = IssuerRule(
    name="oidc",
    issuer="https://issuer.example",
    kind=IssuerKind.OIDC,
    audience="leasehold",
    algorithms=frozenset({"RS256"}),
    keys=KeySource(url="https://issuer.example/jwks"),
)
OLD = jwks(jwk(rsa_key("old"), kid="old"))
BOTH = jwks(jwk(rsa_key("old"), kid="old"), jwk(rsa_key("new"), kid="new"))
USES = frozenset({"sig", ""})


async def reason(cache, key_id):
    """The reason for which this key id gets no keys."""
    with pytest.raises(Refusal) as caught:
        await cache.keys_for(key_id, "RS256")
    return caught.value.reason


@asynccontextmanager
async def serving(handler):
    """A real HTTP server on loopback; gives its origin."""
    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(respond):
    """A server that answers with bytes of the test's choice; gives its URL."""

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await respond(writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_rotation_is_found_at_the_first_unknown_key_id():
    """A key that appears right after a fetch is found by the first token that names it, over real HTTP."""
    served = {"data": OLD, "count": 0}

    async def handler(_request):
        served["count"] += 1
        return web.Response(body=served["data"], content_type="application/json")

    async with serving(handler) as origin:
        cache = JwksCache(replace(RULE, keys=KeySource(url=f"{origin}/jwks?v=1")), ManualClock())
        await cache.start()
        assert (await cache.keys_for("old", "RS256"))[0].key_id == "old"
        served["data"] = BOTH
        assert (await cache.keys_for("new", "RS256"))[0].key_id == "new"
        assert served["count"] == 2
        await cache.aclose()


async def test_flood_of_unknown_key_ids():
    """Thousands of made-up key ids cause at most two fetches in a minute, first fetch included."""
    clock, source = ManualClock(), MemoryKeySource(OLD)
    cache = JwksCache(RULE, clock, source)
    await cache.start()
    for second in range(59):
        clock.advance(1)
        reasons = await asyncio.gather(*(reason(cache, f"x{second}-{number}") for number in range(50)))
        assert {Reason.JWT_UNKNOWN_KEY} == set(reasons)
    assert source.loads == 2
    clock.advance(60)
    source.data = BOTH
    await cache.keys_for("new", "RS256")
    assert source.loads == 3
    await cache.aclose()


async def test_one_fetch_for_all_who_wait():
    """200 callers before the first fetch share one; one that gives up does not take it from the others."""
    source = MemoryKeySource(OLD)
    source.gate.clear()
    cache = JwksCache(RULE, ManualClock(), source)
    waiting = [asyncio.create_task(cache.keys_for("old", "RS256")) for _ in range(200)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    source.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(keys[0].key_id == "old" for keys in results[1:])
    assert source.loads == 1
    await cache.aclose()


async def test_known_keys_never_wait():
    """While a fetch for an unknown id hangs, known ids answer at once."""
    source = MemoryKeySource(OLD)
    cache = JwksCache(RULE, ManualClock(), source)
    await cache.refresh()
    source.gate.clear()
    hanging = asyncio.create_task(reason(cache, "unknown"))
    await asyncio.sleep(0)
    coroutine = cache.keys_for("old", "RS256")
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value[0].key_id == "old"
    source.gate.set()
    assert await hanging == Reason.JWT_UNKNOWN_KEY
    await cache.aclose()


async def test_dead_issuer():
    """Known keys serve on when the issuer is down, until the set is older than its bound; then all are refused."""
    clock, source, failures = ManualClock(), MemoryKeySource(OLD), []
    cache = JwksCache(RULE, clock, source, on_failure=lambda name, why: failures.append((name, why)))
    await cache.refresh()
    source.down = True
    clock.advance(23 * 3600)
    assert await reason(cache, "new") == Reason.JWT_UNKNOWN_KEY
    assert failures == [("oidc", "down")]
    assert (await cache.keys_for("old", "RS256"))[0].key_id == "old"
    clock.advance(2 * 3600)
    assert await reason(cache, "old") == Reason.KEYS_OF_ISSUER_UNAVAILABLE
    source.down = False
    clock.advance(60)
    assert (await cache.keys_for("old", "RS256"))[0].key_id == "old"
    await cache.aclose()


@pytest.mark.parametrize("data", [b'{"keys":[]}', b"{}", b"<html>", jwks({"kty": "oct", "k": "AAAA", "kid": "old"})])
async def test_unusable_set_keeps_the_last_good_one(data):
    """An empty, malformed or secret-key set never replaces a good one."""
    clock, source = ManualClock(), MemoryKeySource(OLD)
    cache = JwksCache(RULE, clock, source)
    await cache.refresh()
    source.data = data
    assert await reason(cache, "new") == Reason.JWT_UNKNOWN_KEY
    assert (await cache.keys_for("old", "RS256"))[0].key_id == "old"
    await cache.aclose()


async def test_issuer_that_was_never_reached():
    """Without any set the reason names the keys, not the token."""
    source = MemoryKeySource(OLD)
    source.down = True
    cache = JwksCache(RULE, ManualClock(), source)
    await cache.start()
    assert await reason(cache, "old") == Reason.KEYS_OF_ISSUER_UNAVAILABLE
    await cache.aclose()


async def test_file_is_read_again_when_it_changes(tmp_path):
    """A key file that is replaced is read anew; one that did not change is not read."""
    path = tmp_path / "jwks.json"
    path.write_bytes(OLD)
    cache = JwksCache(replace(RULE, keys=KeySource(path=str(path))), ManualClock())
    await cache.refresh()
    assert await reason(cache, "new") == Reason.JWT_UNKNOWN_KEY
    (tmp_path / "next").write_bytes(BOTH)
    (tmp_path / "next").rename(path)
    assert (await cache.keys_for("new", "RS256"))[0].key_id == "new"
    path.unlink()
    assert await reason(cache, "x") == Reason.JWT_UNKNOWN_KEY
    assert (await cache.keys_for("new", "RS256"))[0].key_id == "new"
    await cache.aclose()


async def test_set_is_kept_fresh_in_the_background(tmp_path, monkeypatch):
    """Without any token that asks, a changed file is found, and what is wrong with it is told."""
    monkeypatch.setattr("leasehold_broker.adapters.jwks_cache.FILE_POLL_SECONDS", 0.01)
    path = tmp_path / "jwks.json"
    path.write_bytes(OLD)
    told = asyncio.Queue()
    rule = replace(RULE, keys=KeySource(path=str(path)))
    cache = JwksCache(rule, ManualClock(), on_failure=lambda name, why: told.put_nowait((name, why)))
    await cache.start()
    path.write_bytes(b"broken")
    async with asyncio.timeout(240):
        assert await told.get() == ("oidc", "the key set is not strict JSON: not a JSON object")
    assert (await cache.keys_for("old", "RS256"))[0].key_id == "old"
    await cache.aclose()


@pytest.mark.parametrize(
    ("status", "headers", "why"),
    [
        (302, {"Location": "/elsewhere"}, "status 302 where 200 was due (not followed)"),
        (404, {}, "status 404 where 200 was due"),
        (500, {}, "status 500 where 200 was due"),
        (200, {"Content-Encoding": "gzip"}, "the answer is compressed, though identity was asked for"),
    ],
)
async def test_answers_that_are_refused(status, headers, why):
    """Redirects are not followed; only a plain 200 is read."""
    paths = []

    async def respond(writer):
        paths.append(1)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{head}Content-Length: {len(OLD)}\r\n\r\n".encode() + OLD)
        await writer.drain()

    async with raw_server(respond) as url:
        with pytest.raises(KeysNotFetchedError) as caught:
            await HttpKeySource(KeySource(url=url)).load()
    assert why == str(caught.value)
    assert len(paths) == 1


async def test_answer_too_large():
    """An endless answer is cut at the bound."""

    async def respond(writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b" " * 65536)
                await writer.drain()
        except ConnectionError:
            pass

    async with raw_server(respond) as url:
        with pytest.raises(KeysNotFetchedError, match="larger than 262144"):
            await HttpKeySource(KeySource(url=url)).load()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
async def test_answer_that_drips(head):
    """A server that keeps the exchange open runs into the one deadline."""
    over = asyncio.Event()

    async def respond(writer):
        writer.write(head)
        await writer.drain()
        await over.wait()

    async with raw_server(respond) as url:
        with pytest.raises(KeysNotFetchedError, match=r"no answer within 0.2 s"):
            await HttpKeySource(KeySource(url=url), seconds_max=0.2).load()
        over.set()


async def test_answers_cut_short_and_garbage():
    """An answer that ends early, or is not HTTP, is no key set; an unframed one ends with the connection."""
    answers = iter(
        [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"SSH-2.0-x\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\n" + OLD]
    )

    async def respond(writer):
        writer.write(next(answers))
        await writer.drain()

    async with raw_server(respond) as url:
        for why in ("ended early", "not HTTP", "status 0"):
            with pytest.raises(KeysNotFetchedError, match=why):
                await HttpKeySource(KeySource(url=url)).load()
        assert await HttpKeySource(KeySource(url=url)).load() == OLD


async def test_nobody_there():
    """A refused connection says so without an address in the text."""
    async with raw_server(None) as url:
        pass
    with pytest.raises(KeysNotFetchedError, match="not reachable: ConnectionRefusedError"):
        await HttpKeySource(KeySource(url=url)).load()


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/jwks",
        "http://localhost/jwks",
        "http://10.0.0.1/jwks",
        "http://169.254.169.254/",
        "file:///etc/passwd",
        "https://user:pw@issuer.example/",
        "https://issuer.example/#x",
        "https:///jwks",
        "https://issuer.example/a b",
        "https://issuer.example/\r\nX: y",
        "https://[::1/",
        "https://issuer.example:99999/",
        "https://é.example/",
    ],
)
def test_addresses_that_are_refused(url):
    """Only https, or http to a loopback address, without user, fragment or white space."""
    assert url_wrong(url)
    with pytest.raises(ValueError, match="url"):
        HttpKeySource(KeySource(url=url))


def test_keys_that_are_left_out():
    """Keys that are secret, private, weak or meant for something else are left out, each with its reason."""
    good = jwk(ed_key(), kid="good")
    bad = [
        ({"kty": "oct", "k": "AAAA"}, "not an asymmetric key"),
        ({"kty": ["RSA"]}, "not an asymmetric key"),
        ("text", "not an object"),
        (jwk(rsa_key(), d="AAAA"), "private parts"),
        (jwk(rsa_key(), use="enc"), "'use'"),
        (jwk(rsa_key(), use=["sig"]), "'use'"),
        (jwk(rsa_key(), use=""), "'use'"),
        (jwk(rsa_key(), key_ops=["sign"]), "'key_ops'"),
        (jwk(rsa_key(), key_ops="verify"), "'key_ops'"),
        (jwk(rsa_key(), alg="ES256"), "'alg'"),
        (jwk(rsa_key(), alg="HS256"), "'alg'"),
        (jwk(rsa_key(), kid=5), "'kid'"),
        (jwk(rsa_key("weak", 1024)), "RSA of 1024 bits"),
        (jwk(rsa_key(), n="!!"), "cannot be read"),
        (jwk(rsa_key(), n=7), "cannot be read"),
        (jwk(ec_key(), crv="P-999"), "cannot be read"),
        (jwk(ec_key(), x="AAAA"), "cannot be read"),
        (jwk(ec_key(), x=jwk(ec_key("b"))["x"]), "cannot be read"),
        ({"kty": "OKP", "crv": "X25519", "x": jwk(ed_key())["x"]}, "cannot be read"),
    ]
    keys = read_key_set(jwks(*(member for member, _ in bad), good), USES)
    assert [key.key_id for key in keys.keys] == ["good"]
    assert [(number, True) for number in range(len(bad))] == [
        (number, f"key {number}: " in text and bad[number][1] in text) for number, text in enumerate(keys.left_out)
    ]


def test_sets_that_are_refused():
    """Too many keys, too many bytes, duplicate members: the whole set is refused."""
    for data, why in (
        (jwks(*[jwk(ed_key())] * 65), "65 keys"),
        (b'{"keys":[' + b" " * 300_000 + b"]}", "larger than"),
        (b'{"keys":[],"keys":[]}', "duplicate members"),
        (b'{"keys":{}}', "no list"),
    ):
        with pytest.raises(KeySetRefusedError, match=why):
            read_key_set(data, USES)


def test_token_without_key_id_needs_exactly_one_fitting_key():
    """Without a key id there must be no choice."""
    one = read_key_set(jwks(jwk(rsa_key(), kid="a"), jwk(ec_key(), kid="b")), USES)
    two = read_key_set(BOTH, USES)
    assert one.candidates(None, "RS256")[0].key_id == "a"
    assert two.candidates(None, "RS256") == ()
    assert one.candidates(None, "ES384") == ()
