"""Who may be a sidecar at a real collector over TLS: by certificate, by token, and as certificates change."""

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakes.centre import Sidecar, eventually
from tests.fakes.certificates import Authority

from leasehold_broker.adapters.collector_link import TlsFiles
from leasehold_broker.config import load_collector
from leasehold_broker.demo.issuer import Issuer
from leasehold_broker.wiring.collector import Collector

pytestmark = pytest.mark.timeout(120)
SIDECAR_ID = "spiffe://prod.example/research/sidecar"
CONFIG = """
[collector]
name = "centre"
state_dir = "state"
authority_seconds = 5

[grpc]
socket = ""
address = "127.0.0.1:{port}"
[grpc.tls]
certificate = "server.pem"
private_key = "server.key"
{client_ca}

[[issuers]]
name = "demo"
kind = "oidc"
issuer = "{issuer}"
audience = "leasehold-collector"
algorithms = ["ES256"]
replay = "off"
jwks_url = "{issuer}/jwks.json"

[[sidecars]]
name = "sidecar-1"
{rule}

[[operators]]
role = "responder"
uids = [0]
"""
BY_CERTIFICATE = f'spiffe_id = "{SIDECAR_ID}"'


class House:
    """A collector's folder, its authority and issuer."""

    def __init__(self, folder: Path) -> None:
        """Make the authority; `serving` makes the rest."""
        self.folder = folder
        self.authority = Authority()
        self.issuer = Issuer()
        self.port = 0
        (folder / "ca.pem").write_bytes(self.authority.pem)

    @asynccontextmanager
    async def serving(self, rule: str, *, client_ca: bool):
        """A collector process's parts, all of them, in this one."""
        await self.issuer.start()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.authority.issue().files(self.folder, "server")
        config = self.folder / "collector.toml"
        asked = 'client_ca = "ca.pem"' if client_ca else ""
        config.touch(mode=0o640)
        config.write_text(
            CONFIG.format(port=self.port, client_ca=asked, issuer=self.issuer.url, rule=rule.format(self.issuer.url))
        )
        collector = Collector(load_collector(config))
        try:
            async with collector.serving():
                yield collector
        finally:
            await self.issuer.stop()

    def sidecar(self, uri: str = "", *, token: Path | None = None, name: str = "sidecar-1") -> Sidecar:
        """A real link that shows a certificate with this URI, or a token, or both."""
        tls = TlsFiles(self.folder / "ca.pem", server_name="localhost")
        if uri:
            certificate, key = self.authority.issue(uri).files(self.folder, f"client-{name}")
            tls = replace(tls, certificate=certificate, key=key)
        sidecar = Sidecar(f"127.0.0.1:{self.port}", name)
        sidecar.link._settings = replace(sidecar.settings, tls=tls, token=token and token.read_text)
        return sidecar


def connected(sidecar: Sidecar) -> bool:
    """It has the centre's authority."""
    return sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None


async def refused(sidecar: Sidecar, reason: str) -> None:
    """It is refused for this, on both streams, and nothing of it is stored."""
    sidecar.emit(1)
    async with sidecar:
        await eventually(lambda: sidecar.link.counters.failures.get(reason, 0) >= 2)
    assert not connected(sidecar)
    assert sidecar.link.counters.records_acknowledged == 0


@pytest.fixture
def house(tmp_path):
    """Not serving yet."""
    return House(tmp_path)


async def test_a_sidecar_is_known_by_the_spiffe_id_of_its_certificate_alone(house):
    """No token anywhere: the exact id is that sidecar, and its events are taken."""
    async with house.serving(BY_CERTIFICATE, client_ca=True):
        sidecar = house.sidecar(SIDECAR_ID)
        sidecar.emit(3)
        async with sidecar:
            await eventually(lambda: connected(sidecar))
            await sidecar.outbox.empty()
        assert sidecar.link.counters.records_acknowledged == 3


@pytest.mark.parametrize(
    "uri",
    [SIDECAR_ID + "-2", SIDECAR_ID.removesuffix("/sidecar"), SIDECAR_ID.replace("prod", "staging"), SIDECAR_ID + "/x"],
)
async def test_another_spiffe_id_of_the_same_authority_is_no_sidecar(house, uri):
    """Exact match: no prefix, no other trust domain."""
    async with house.serving(BY_CERTIFICATE, client_ca=True):
        await refused(house.sidecar(uri), "SIDECAR_BANNED")


async def test_a_certificate_that_is_no_x509_svid_needs_a_token(house):
    """A common name or a DNS name is nobody."""
    async with house.serving(BY_CERTIFICATE, client_ca=True):
        await refused(house.sidecar("https://prod.example/research/sidecar"), "IDENTITY_REJECTED")


async def test_a_sidecar_writes_no_other_stream(house):
    """The certificate is sidecar-1; it says it is sidecar-2."""
    async with house.serving(BY_CERTIFICATE, client_ca=True):
        await refused(house.sidecar(SIDECAR_ID, name="sidecar-2"), "SIDECAR_BANNED")


async def test_a_sidecar_is_known_by_its_token_over_tls_without_a_certificate(house):
    """client_ca left out: the sidecar's workload JWT alone, encrypted; without it nobody."""
    async with house.serving('issuer = "{}"\nsubject = "sidecar-1"', client_ca=False):
        token = house.issuer.project(house.folder / "token", "sidecar-1", "leasehold-collector")
        sidecar = house.sidecar(token=token)
        sidecar.emit(1)
        async with sidecar:
            await eventually(lambda: connected(sidecar))
            await sidecar.outbox.empty()
        await refused(house.sidecar(), "IDENTITY_REJECTED")


async def test_certificates_are_read_again_when_they_change(house):
    """A half-written pair changes nothing; the whole pair, of another authority, is shown to the next connection."""
    async with house.serving(BY_CERTIFICATE, client_ca=True):
        old, second = house.sidecar(SIDECAR_ID), house.sidecar(SIDECAR_ID)
        async with old:
            await eventually(lambda: connected(old))
            house.authority = Authority()
            own = house.authority.issue()
            (house.folder / "server.pem").write_bytes(own.pem)
            await asyncio.sleep(1.5)  # more than one look at the files
            async with second:
                await eventually(lambda: connected(second))
            (house.folder / "server.key").write_bytes(own.key)
            (house.folder / "ca.pem").write_bytes(house.authority.pem)
            fresh = house.sidecar(SIDECAR_ID)
            async with fresh:
                await eventually(lambda: connected(fresh))
