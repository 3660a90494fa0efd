"""A real collector with TLS, in this process: its authority, its issuer, and sidecars as a test wants them."""

import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tests.fakes.centre import Sidecar, eventually
from tests.fakes.certificates import Authority

from leasehold_broker.adapters.collector_link import TlsFiles
from leasehold_broker.config import load_collector
from leasehold_broker.demo.issuer import Issuer
from leasehold_broker.wiring.collector import Collector

SIDECAR_ID = "spiffe://prod.example/research/sidecar"
CONFIG = """
[collector]
name = "centre"
state_dir = "state"
authority_seconds = 5

[grpc]
socket = "{socket}"
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
uids = [{uid}]
"""
BY_CERTIFICATE = f'spiffe_id = "{SIDECAR_ID}"'
BY_PROJECTED_TOKEN = 'issuer = "{}"\nsubject = "sidecars/1"'


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
    async def serving(
        self, rule: str, *, client_ca: bool, unix: bool = False, operator: int = 0, more: str = "", address: bool = True
    ):
        """A collector process's parts, all of them, in this one; `unix`: on a Unix socket as well; `more` tables."""
        await self.issuer.start()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.authority.issue().files(self.folder, "server")
        config = self.folder / "collector.toml"
        asked = 'client_ca = "ca.pem"' if client_ca else ""
        config.touch(mode=0o640)
        config.write_text(
            CONFIG.format(
                port=self.port,
                client_ca=asked,
                issuer=self.issuer.url,
                rule=rule.format(self.issuer.url),
                socket="run/centre.sock" if unix else "",
                uid=operator,
            ).replace("address =", "address =" if address else "# address =", 1)
            + more
        )
        try:
            collector = Collector(load_collector(config))
            async with collector.serving():
                yield collector
        finally:
            await self.issuer.stop()

    @property
    def target(self) -> str:
        """Of the Unix socket."""
        return f"unix://{self.folder}/run/centre.sock"

    def local_sidecar(self, token: Path | None = None) -> Sidecar:
        """A real link through the Unix socket."""
        sidecar = Sidecar(self.target, "sidecar-1")
        sidecar.link._settings = replace(sidecar.settings, token=token and token.read_text)
        return sidecar

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
