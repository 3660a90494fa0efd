"""A collector that rotates and a sidecar that serves, in processes of their own over one key file."""

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.fakes.issuer import ec_key, jwk, jwks, sign
from tests.fakes.own_sidecar import GRANT
from tests.fakes.rotating_provider import FIRST, write_program
from tests.processes.tokens import ISSUER

from leasehold.custodian import KeyClient
from leasehold.operators import OperatorClient
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.demo.stage import broker
from leasehold_broker.domain.secret import Secret

KEY = "openai-test"
LIMITS = "limits = { drain_seconds_min = 1, verify_seconds = 60, mint_seconds = 60, probe_seconds = 60 }"
ISSUER_TABLE = """
[[issuers]]
name = "test"
kind = "oidc"
issuer = "{issuer}"
audience = "leasehold"
algorithms = ["ES256"]
replay = "off"
jwks_file = "{root}/jwks.json"
labels = {{ environment = {{ fixed = "test" }} }}
"""


def signed(subject: str, **claims: object) -> str:
    """A token of the test's issuer."""
    now = int(time.time())
    body = {"iss": ISSUER, "sub": subject, "aud": "leasehold", "iat": now, "exp": now + 600, **claims}
    return sign(body, ec_key("process"), "ES256", kid="k")


class RotationStage:
    """Files of both processes in `root`, and the processes."""

    def __init__(self, root: Path, origin: str, rotation: str = "", more: str = "") -> None:
        """Write everything.

        Args:
            root: private folder with a short path.
            origin: of the provider.
            rotation: more lines of [[rotations]].
            more: more tables of the collector.
        """
        root.chmod(0o700)
        self.root = root
        self.said: list[str] = []
        (root / "jwks.json").write_bytes(jwks(jwk(ec_key("process"), kid="k", use="sig")))
        FileMasterKey.create(str(root / "master.key"))
        store = LocalKeys.create(str(root / "keys.json"), FileMasterKey(str(root / "master.key")), SystemClock())
        store.add(KEY, "openai", "test", Secret(FIRST.encode()))
        write_program(root / "mint.py", origin)
        issuer = ISSUER_TABLE.format(issuer=ISSUER, root=root)
        keys = 'file = "keys.json"\nmaster_key_file = "master.key"\n'
        provider = f'[providers.openai]\norigin = "{origin}"\nallow_private = true\n'
        self._write("sidecar.token", signed("sidecar"))
        grant = GRANT.format(name="test", issuer=ISSUER, extra="")
        self._write("policy.toml", f"version = 1\n{grant}")
        self._write(
            "collector.toml",
            f"""[collector]
name = "centre"
state_dir = "{root}/centre"
authority_seconds = 3
[grpc]
socket = "{root}/centre.sock"
{issuer}
[[sidecars]]
name = "one"
issuer = "{ISSUER}"
subject = "sidecar"
[[operators]]
role = "responder"
uids = [{os.geteuid()}]
[[operators]]
role = "custodian"
uids = [{os.geteuid()}]
[[operators]]
role = "auditor"
uids = [{os.geteuid()}]
[keys]
{keys}
{provider}
[[rotations]]
key = "{KEY}"
at = {{ minter = "exec", program = "mint.py" }}
{rotation or LIMITS}
[logging]
level = "debug"
{more}
""",
        )
        self._write(
            "sidecar.toml",
            f"""[sidecar]
name = "one"
state_dir = "{root}/one"
drain_seconds = 0.1
[grpc]
socket = "{root}/agent.sock"
[egress]
address = "127.0.0.1:0"
[policy]
file = "policy.toml"
[keys]
{keys}
[collector]
target = "unix://{root}/centre.sock"
token_file = "sidecar.token"
{provider}
{issuer}
[logging]
level = "debug"
""",
        )

    def _write(self, name: str, text: str) -> None:
        path = self.root / name
        path.touch(mode=0o600)
        path.write_text(text)

    @property
    def agent(self) -> str:
        """The sidecar's socket."""
        return f"unix://{self.root}/agent.sock"

    @property
    def centre(self) -> str:
        """The collector's socket."""
        return f"unix://{self.root}/centre.sock"

    def custodian(self, token: str | None = None) -> KeyClient:
        """A client of the collector, by uid or by this token."""
        return KeyClient(self.centre, token, timeout_seconds=30)

    def events(self, type_: str = "key.rotation_", key: str = KEY) -> list[dict]:
        """Events of a kind that the collector has of a key."""
        with OperatorClient(self.centre, timeout_seconds=30) as client:
            return [
                record.event()
                for record in client.events(type=type_ if type_.endswith(".") else "", key=key)
                if record.event()["type"].startswith(type_)
            ]

    def refusals(self) -> list[dict]:
        """What was refused of rotations."""
        with OperatorClient(self.centre, timeout_seconds=30) as client:
            return [record.event() for record in client.events(type="key.rotation_refused")]

    def serving_value(self) -> str:
        """The value that the store serves."""
        store = LocalKeys(str(self.root / "keys.json"), FileMasterKey(str(self.root / "master.key")), SystemClock())
        opened, entry = store.read_entry(KEY)
        from leasehold_broker.adapters.keys_document import Sealed  # noqa: PLC0415 - the truth behind the port

        return opened.unseal(entry.record, Sealed(entry.record.version, entry.nonce, entry.sealed)).reveal().decode()

    @contextlib.contextmanager
    def process(self, what: str, command: Callable[..., list[str]] = broker):
        """A collector or a sidecar, once it serves; killed by the test, or stopped at the end."""
        with subprocess.Popen(
            command(what, "--config", str(self.root / f"{what}.toml")), stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                for line in process.stderr:
                    self.said.append(line)
                    if '"serving"' in line and "grpc_port" in json.loads(line):
                        break
                else:
                    raise RuntimeError("".join(self.said[-5:]))
                drain = threading.Thread(target=lambda: self.said.extend(process.stderr), name=f"{what}'s log")
                drain.start()
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()
                process.wait(30)
