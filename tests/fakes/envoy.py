"""A real Envoy in front of real sidecars, with the files of deploy/envoy: only places and names are put in.

Of the stage's two sidecars the first is reached as by gateway.yaml, the second as by pod.yaml. Everything runs as one
user, so whoever connects to a sidecar's socket directly counts as Envoy there.
"""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.fakes.certificates import Authority, Certificate
from tests.fakes.ports import free_port

from leasehold import LeaseholdClient, TlsFiles
from leasehold_broker.demo.stage import Stage

DEPLOY = Path(__file__).parents[2] / "deploy" / "envoy"
GATEWAY, POD = "sidecar-a", "sidecar-b"
START_SECONDS_MAX = 60.0
RESEARCHER, REVIEWER, STRANGER, OUTSIDER = (
    f"spiffe://prod.example/ns/research/sa/{name}" for name in ("researcher", "reviewer", "stranger", "outsider")
)
"""The sidecar takes the first two, Envoy the first three."""
_ADMITTED = '                      - san_type: URI\n                        matcher: {{ exact: "{}" }}\n'


def installed() -> Path | None:
    """Where Envoy is, or None (then its tests are skipped: `make .venv/envoy.stamp` brings it)."""
    unpacked = Path(sys.prefix) / "envoy" / "envoy" / "_bin" / "envoy"
    return unpacked if unpacked.exists() else None


def filled(name: str, places: Mapping[str, str]) -> str:
    """A file of deploy/envoy with these texts replaced; each must be there."""
    text = (DEPLOY / name).read_text()
    for what, by in places.items():
        assert what in text, f"{name} has no {what!r}"
        text = text.replace(what, by)
    return text


def secrets_in(folder: Path, tls: Path) -> Path:
    """The files of deploy/envoy/secrets, in a folder of their own, for certificates that lie in `tls`."""
    made = folder / "secrets"
    made.mkdir(mode=0o755)
    for name in ("certificate.yaml", "agents.yaml"):
        (made / name).write_text(filled(f"secrets/{name}", {"/etc/leasehold-envoy/tls": str(tls)}))
    return made


def command(config: Path, *options: str) -> list[str]:
    """How Envoy is called: one worker, no shared memory that two Envoys could fight over."""
    binary = installed()
    assert binary is not None
    return [str(binary), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", *options]


class Envoy:
    """One Envoy: its access log and, at debug level, everything else it says."""

    def __init__(self, folder: Path, name: str, config: str, listens: Path | int, **process: Any) -> None:
        """Nothing runs yet. `listens`: where to look whether it does; `process`: further settings of it."""
        self.config = folder / f"{name}.yaml"
        self.config.write_text(config)
        self.access_log, self.log = folder / f"{name}.access", folder / f"{name}.log"
        self._listens = listens
        self._settings = process
        self.level = "debug"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the one that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Return once it listens.

        Raises:
            RuntimeError: it does not.
        """
        with self.access_log.open("ab") as out, self.log.open("ab") as err:
            arguments = command(self.config, "--log-level", self.level)
            self._process = subprocess.Popen(arguments, stdout=out, stderr=err, **self._settings)
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._knock()
                return
            time.sleep(0.02)
        self.stop()
        message = f"Envoy did not start: {self.log.read_text()[-2000:]}"
        raise RuntimeError(message)

    def stop(self) -> None:
        """End it on the spot."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def _knock(self) -> None:
        tcp = isinstance(self._listens, int)
        with socket.socket(socket.AF_INET if tcp else socket.AF_UNIX) as knocking:
            knocking.connect(("127.0.0.1", self._listens) if tcp else str(self._listens))


class EnvoyStage(Stage):
    """The demo's stage with two sidecars that know an Envoy; the Envoys are started by the test."""

    def __init__(self, root: Path, *, envoy_uid: int | None = None, **settings: Any) -> None:
        """Choose places; issue certificates. `envoy_uid`: whom the sidecars take for Envoy; None: this user."""
        super().__init__(root, **settings)
        self._envoy_uid = os.geteuid() if envoy_uid is None else envoy_uid
        self.authority = Authority()
        self.tls = root / "tls"
        self.ports = {GATEWAY: free_port(), POD: free_port()}
        self.pod_socket = root / "run" / "envoy" / "agent.sock"
        self.certificates: dict[str, Certificate] = {}

    def sidecar_text(self, name: str, origins: Mapping[str, str]) -> str:
        """As ever, with sockets for Envoy and the table that names it."""
        text = super().sidecar_text(name, origins)
        scheme, callers = ("https", f'["{RESEARCHER}", "{REVIEWER}"]') if name == GATEWAY else ("http", "[]")
        table = (
            f'[envoy]\nuid = {self._envoy_uid}\nurl = "{scheme}://127.0.0.1:{self.ports[name]}"\ncallers = {callers}\n'
        )
        egress = f'[egress]\nsocket = "{self.egress_socket(name)}"\n'
        return text.replace("[egress]\n", egress) + table

    def egress_socket(self, name: str) -> Path:
        """Of a sidecar."""
        return self.layout.root / "run" / f"{name}-egress" / "egress.sock"

    def gateway(self) -> Envoy:
        """gateway.yaml in front of the first sidecar."""
        self.tls.mkdir(mode=0o700)
        (self.tls / "agents-ca.pem").write_bytes(self.authority.pem)
        self.authority.issue(addresses=["127.0.0.1"]).files(self.tls, "envoy")
        port = self.ports[GATEWAY]
        places = {
            "address: 0.0.0.0, port_value: 8443": f"address: 127.0.0.1, port_value: {port}",
            "/etc/leasehold-envoy/secrets": str(secrets_in(self.layout.root, self.tls)),
            _ADMITTED.format(RESEARCHER): "".join(map(_ADMITTED.format, (RESEARCHER, REVIEWER, STRANGER))),
            **self._sockets(GATEWAY),
        }
        return Envoy(self.layout.logs, "gateway", filled("gateway.yaml", places), port)

    def renew(self) -> Certificate:
        """A new certificate for the first Envoy, renamed into place as a mesh does it."""
        certificate = self.authority.issue(addresses=["127.0.0.1"])
        for fresh in certificate.files(self.tls, "fresh"):
            fresh.rename(fresh.with_stem("envoy"))
        return certificate

    def pod(self) -> Envoy:
        """pod.yaml in front of the second sidecar."""
        self.pod_socket.parent.mkdir(mode=0o700)
        port = self.ports[POD]
        places = {
            "port_value: 15788": f"port_value: {port}",
            "/run/leasehold-envoy/agent.sock": str(self.pod_socket),
            **self._sockets(POD),
        }
        return Envoy(self.layout.logs, "pod", filled("pod.yaml", places), self.pod_socket)

    def _sockets(self, name: str) -> dict[str, str]:
        return {
            "path: /run/leasehold/agent.sock": f"path: {self.layout.socket(name)}",
            "path: /run/leasehold-egress/egress.sock": f"path: {self.egress_socket(name)}",
        }

    def certificate(self, spiffe_id: str) -> Certificate:
        """The agent's, as files too."""
        if spiffe_id not in self.certificates:
            self.certificates[spiffe_id] = self.authority.issue(spiffe_id)
            self.certificates[spiffe_id].files(self.tls, _name(spiffe_id))
        return self.certificates[spiffe_id]

    def files_of(self, spiffe_id: str) -> TlsFiles:
        """What an agent with this certificate shows and trusts."""
        self.certificate(spiffe_id)
        own = self.tls / _name(spiffe_id)
        return TlsFiles(self.tls / "agents-ca.pem", own.with_suffix(".pem"), own.with_suffix(".key"))

    def context_of(self, spiffe_id: str) -> ssl.SSLContext:
        """The same for an HTTP client."""
        files = self.files_of(spiffe_id)
        context = ssl.create_default_context(cafile=files.ca_file)
        assert files.certificate_file is not None
        context.load_cert_chain(files.certificate_file, files.key_file)
        return context

    def agent(self, spiffe_id: str) -> LeaseholdClient:
        """A client that reaches the first sidecar through Envoy, with a fresh workload token."""
        token = self.workload(_name(spiffe_id), f"agents/research/{_name(spiffe_id)}", team="research")
        return LeaseholdClient(f"127.0.0.1:{self.ports[GATEWAY]}", token, tls=self.files_of(spiffe_id))

    def pod_agent(self) -> LeaseholdClient:
        """A client that reaches the second sidecar through Envoy's socket."""
        return LeaseholdClient(
            f"unix://{self.pod_socket}", self.workload("pod", "agents/research/pod", team="research")
        )


def _name(spiffe_id: str) -> str:
    return spiffe_id.rpartition("/")[2]
