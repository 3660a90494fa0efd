"""A stage whose sidecar reaches its collector over TCP with mutual TLS, while operators come by a Unix socket.

So the wire between the two can be harmed, and the operator still asks what the centre believes.
"""

import socket
from collections.abc import Mapping
from pathlib import Path

from tests.bench.fleet.stage import spiffe_id
from tests.fakes.certificates import Authority
from tests.unkind.real_house import SIDECAR

from leasehold_broker.demo import files
from leasehold_broker.demo.stage import Stage

TLS = """address = "127.0.0.1:{port}"
[grpc.tls]
certificate = "{folder}/collector.pem"
private_key = "{folder}/collector.key"
client_ca = "{folder}/ca.pem"
"""


class WiredStage(Stage):
    """A context manager, as `Stage`."""

    centre_port = 0

    async def start(self, name: str) -> None:
        """The collector's own door is added before its first start."""
        if name == "collector" and not self.centre_port:
            self._lay_the_wire()
        await super().start(name)

    def sidecar_text(self, name: str, origins: Mapping[str, str]) -> str:
        """As everywhere, but its centre is reached over the wire."""
        folder = self._certificates
        centre = f"""[collector]
target = "localhost:{self.centre_port}"
ca_file = "{folder}/ca.pem"
certificate_file = "{folder}/{name}.pem"
private_key_file = "{folder}/{name}.key"
"""
        return super().sidecar_text(name, origins).partition("[collector]")[0] + centre

    @property
    def _certificates(self) -> Path:
        return self.layout.root / "certificates"

    def _lay_the_wire(self) -> None:
        folder, authority = self._certificates, Authority()
        folder.mkdir(mode=0o700)
        files.write(folder / "ca.pem", authority.pem.decode())
        authority.issue().files(folder, "collector")
        authority.issue(spiffe_id(SIDECAR)).files(folder, SIDECAR)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.centre_port = probe.getsockname()[1]
        config = self.layout.config("collector")
        door = f'socket = "{self.layout.socket("collector")}"\n'
        told = config.read_text().replace(door, door + TLS.format(folder=folder, port=self.centre_port))
        by_token = f'issuer = "{self.issuer.url}"\nsubject = "sidecars/{SIDECAR}"'
        config.write_text(told.replace(by_token, f'spiffe_id = "{spiffe_id(SIDECAR)}"'))
