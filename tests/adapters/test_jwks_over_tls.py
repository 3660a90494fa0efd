"""Key sets over TLS: the certificate is verified, and a bearer token is sent only there."""

import datetime as dt
import ipaddress
import ssl

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.fakes.certificates import identified
from tests.fakes.issuer import ec_key, jwk, jwks, rsa_key

from leasehold_broker.adapters.jwks_sources import HttpKeySource, KeysNotFetchedError
from leasehold_broker.domain.issuer import KeySource, source_wrong

DATA = jwks(jwk(rsa_key(), kid="k1"))


def certificate(folder, address):
    """A self-signed certificate for an address, as two PEM files."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test issuer")])
    key = ec_key("tls")
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    signed = identified(builder, key, key, authority=True).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(signed.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


async def serve(folder, address, seen):
    """An https server on loopback that remembers what it was sent; gives its URL and how to stop it."""

    async def handler(request):
        seen.append(request.headers.get("Authorization"))
        return web.Response(body=DATA)

    app = web.Application()
    app.router.add_get("/openid/v1/jwks", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate(folder, address))
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    return f"https://127.0.0.1:{port}/openid/v1/jwks", runner.cleanup


async def test_verified_with_the_given_authority_and_token(tmp_path):
    """As in a cluster: own authority, and a bearer token that is read anew for each fetch."""
    seen = []
    url, stop = await serve(tmp_path, "127.0.0.1", seen)
    (tmp_path / "token").write_text("first\n")
    source = HttpKeySource(KeySource(url=url, ca_path=str(tmp_path / "cert.pem"), bearer_path=str(tmp_path / "token")))
    assert await source.load() == DATA
    (tmp_path / "token").write_text("second")
    assert await source.load() == DATA
    assert seen == ["Bearer first", "Bearer second"]
    (tmp_path / "token").write_text("two\r\nX: y")
    with pytest.raises(KeysNotFetchedError, match="holds no bearer token"):
        await source.load()
    await stop()


async def test_unknown_authority_and_wrong_name(tmp_path):
    """A certificate of an unknown authority, or for another address, is refused before anything is sent."""
    seen = []
    url, stop = await serve(tmp_path, "127.0.0.1", seen)
    with pytest.raises(KeysNotFetchedError, match="SSLCertVerificationError"):
        await HttpKeySource(KeySource(url=url)).load()
    await stop()
    url, stop = await serve(tmp_path, "127.0.0.2", seen)
    with pytest.raises(KeysNotFetchedError, match="SSLCertVerificationError"):
        await HttpKeySource(KeySource(url=url, ca_path=str(tmp_path / "cert.pem"))).load()
    await stop()
    assert seen == []


def test_token_in_the_clear_is_refused():
    """A bearer token never goes over http, not even to loopback."""
    assert source_wrong(KeySource(url="http://127.0.0.1/jwks", bearer_path="/token"))
