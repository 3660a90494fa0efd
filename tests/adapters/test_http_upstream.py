"""The client to the providers: addresses, TLS, pool, and where the key goes."""

import asyncio
import datetime as dt
import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.fakes.certificates import identified
from tests.fakes.egress import KEY, Origin, json_answer

from leasehold_broker.adapters.http_upstream import HttpUpstream, UpstreamOrigin, UpstreamSettings, is_public
from leasehold_broker.ports.provider import UpstreamRequest
from leasehold_broker.ports.upstream import UpstreamFailure

REQUEST = UpstreamRequest("POST", "/v1/x", (("content-type", "application/json"),), b"{}")


class Answered:
    """A listener that keeps what it gets."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.status = 0
        self.body = b""
        self.failure: UpstreamFailure | None = None
        self.over = asyncio.Event()

    def answer_started(self, status, headers) -> None:
        """Keep the status."""
        del headers
        self.status = status

    def body_received(self, data) -> None:
        """Keep the bytes."""
        self.body += data

    def answer_finished(self) -> None:
        """Over."""
        self.over.set()

    def answer_failed(self, failure) -> None:
        """Over."""
        self.failure = failure
        self.over.set()


class Key:
    """Counts how often the key was asked for."""

    def __init__(self) -> None:
        """Never."""
        self.asked = 0

    def __call__(self) -> tuple[str, bytes]:
        """The key's header."""
        self.asked += 1
        return "x-api-key", KEY.encode()


async def ask(upstream: HttpUpstream, origin: str, request: UpstreamRequest = REQUEST):
    """One call to its end."""
    answered, key = Answered(), Key()
    call = upstream.send(origin, request, key, answered)
    async with asyncio.timeout(240):
        await answered.over.wait()
    return answered, call, key


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
async def test_private_addresses_are_not_connected_to(address):
    """A provider's name that leads to a private, local or special address is not followed, in whatever clothes."""
    assert not is_public(address)

    async def resolver(host: str, port: int) -> list[str]:
        return [address]

    upstream = HttpUpstream([UpstreamOrigin("https://api.example.com")], resolver=resolver)
    answered, call, key = await ask(upstream, "https://api.example.com")
    assert (answered.failure, call.sent, key.asked) == (UpstreamFailure.ADDRESS_FORBIDDEN, False, 0)
    await upstream.close()


def test_public_addresses_are_public():
    """Addresses of the internet pass."""
    assert is_public("160.79.104.10")
    assert is_public("2607:6bc0::10")
    assert is_public("64:ff9b::8.8.8.8")


@pytest.mark.parametrize(
    "url",
    ["http://api.example.com", "https://user@api.example.com", "https://api.example.com/", "ftp://x", "https://", "x"],
)
def test_only_plain_encrypted_origins_are_taken(url):
    """An origin with a path, a user, another scheme or without TLS is refused at start."""
    with pytest.raises(ValueError, match=r"origin|https"):
        HttpUpstream([UpstreamOrigin(url)])


def test_a_context_that_does_not_verify_is_refused():
    """Nobody can hand in a TLS context that trusts everyone."""
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(ValueError, match="verify"):
        HttpUpstream([], trust=context)


async def test_a_proxy_from_the_environment_is_not_used(monkeypatch):
    """Proxy variables change nothing."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    origin = Origin()
    await origin.start()
    upstream = HttpUpstream([UpstreamOrigin(origin.url, allow_private=True)])
    answered, _, _ = await ask(upstream, origin.url)
    assert (answered.status, answered.failure) == (200, None)
    await upstream.close()
    await origin.stop()


async def test_the_key_is_asked_for_only_when_it_is_written():
    """No connection, no key; one request, one key; what cannot be written asks for none and is not quoted."""
    origin = Origin()
    await origin.start()
    upstream = HttpUpstream([UpstreamOrigin(origin.url, allow_private=True)])
    answered, call, key = await ask(upstream, origin.url)
    assert (answered.status, call.sent, key.asked) == (200, True, 1)
    assert origin.requests == [b"{}"]
    assert b"x-api-key: " + KEY.encode() in origin.heads[0]
    for bad in (
        UpstreamRequest("POST", "/v1/x\r\nx: y", (), b""),
        UpstreamRequest("POST", "/v1/x y", (), b""),
        UpstreamRequest("POST", "http://evil.example/", (), b""),
        UpstreamRequest("POST", "/v1/x", (("a", "b\r\nc: d"),), b""),
        UpstreamRequest("POST", "/v1/x", (("a", "é"),), b""),
        UpstreamRequest("POST", "/v1/x", (("A b", "c"),), b""),
        UpstreamRequest("P T", "/v1/x", (), b""),
    ):
        key = Key()
        with pytest.raises(ValueError, match="holds a character"):
            upstream.send(origin.url, bad, key, Answered())
        assert key.asked == 0
    await upstream.close()
    await origin.stop()
    answered, call, key = await ask(upstream, origin.url)
    assert (answered.failure, call.sent, key.asked) == (UpstreamFailure.CONNECT_FAILED, False, 0)
    await upstream.close()


async def test_an_unused_connection_is_closed_after_its_time():
    """The pool lets go of a connection that nobody used for its idle time."""
    origin = Origin()
    await origin.start()
    settings = UpstreamSettings(pool_idle_seconds=0.05, tick_seconds=0.01)
    upstream = HttpUpstream([UpstreamOrigin(origin.url, allow_private=True)], settings)
    await ask(upstream, origin.url)
    async with asyncio.timeout(240):
        await origin.lost.wait()
    await ask(upstream, origin.url)
    assert origin.connections == 2
    await upstream.close()
    await origin.stop()


async def test_an_interim_answer_is_skipped():
    """100 and 103 before the answer are read over."""
    origin = Origin()
    good = json_answer()

    async def answer(reader, writer) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
        await good(reader, writer)

    origin.answer = answer
    await origin.start()
    upstream = HttpUpstream([UpstreamOrigin(origin.url, allow_private=True)])
    for _ in range(2):
        answered, _, _ = await ask(upstream, origin.url)
        assert (answered.status, answered.body) == (200, b'{"ok":true,"usage:7":0}')
    assert origin.connections == 1
    await upstream.close()
    await origin.stop()


async def test_an_abort_while_connecting_sends_nothing():
    """A call dropped before its connection is there asks for no key and calls nobody back."""
    started, go = asyncio.Event(), asyncio.Event()

    async def resolver(host: str, port: int) -> list[str]:
        started.set()
        await go.wait()
        return ["127.0.0.1"]

    upstream = HttpUpstream([UpstreamOrigin("http://x.test:1", allow_private=True)], resolver=resolver)
    answered, key = Answered(), Key()
    call = upstream.send("http://x.test:1", REQUEST, key, answered)
    await started.wait()
    call.abort()
    call.abort()
    go.set()
    await upstream.close()
    assert (key.asked, call.sent, answered.over.is_set()) == (0, False, False)


async def test_connecting_has_a_deadline():
    """A name server that does not answer costs the connect time, no more."""

    async def resolver(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    settings = UpstreamSettings(connect_seconds=0.05)
    upstream = HttpUpstream([UpstreamOrigin("https://x.test")], settings, resolver=resolver)
    answered, call, _ = await ask(upstream, "https://x.test")
    assert (answered.failure, call.sent) == (UpstreamFailure.CONNECT_TIMEOUT, False)
    await upstream.close()


def certificate(host: str) -> tuple[bytes, bytes]:
    """A self-signed certificate for `host` and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    alternative = x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    built = identified(builder, key, key, authority=True).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return built.public_bytes(serialization.Encoding.PEM), private


@pytest.mark.parametrize(
    ("served", "trusted", "failure"),
    [
        ("api.test", True, None),
        ("other.test", True, UpstreamFailure.TLS_FAILED),
        ("api.test", False, UpstreamFailure.TLS_FAILED),
    ],
)
async def test_the_servers_certificate_is_verified(tmp_path, served, trusted, failure):
    """Only a trusted certificate with the configured name gets the request and the key."""
    pem, private = certificate(served)
    (tmp_path / "c.pem").write_bytes(pem)
    (tmp_path / "k.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    origin = Origin()
    server = await asyncio.start_server(origin._serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    trust = ssl.create_default_context(cadata=pem.decode()) if trusted else ssl.create_default_context()
    url = f"https://api.test:{port}"
    upstream = HttpUpstream([UpstreamOrigin(url, allow_private=True)], trust=trust, resolver=resolver)
    answered, call, key = await ask(upstream, url)
    expected = (failure, failure is None, 0 if failure else 1)
    assert expected == (answered.failure, call.sent, key.asked)
    assert ssl.TLSVersion.TLSv1_2 == trust.minimum_version
    await upstream.close()
    server.close()
