"""A real sidecar, in a process of its own: real store, real doors, real sockets, the issuers a test asks for.

It runs alone, with an admin socket, where its audit log is read as an operator would.
"""

import contextlib
import json
import os
import subprocess
import threading
import time
from pathlib import Path

from tests.fakes.planted import planted

from leasehold import LeaseholdError
from leasehold.operators import OperatorClient
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.demo.stage import broker
from leasehold_broker.domain.secret import Secret

GRANT = """
[[grants]]
name = "{name}"
issuer = "{issuer}"
subjects = ["*"]
environment = "test"
keys = ["openai-test"]
ttl_seconds_max = 600
life_seconds_max = 3600
delegation_depth_max = 2
{extra}

[[grants.scopes]]
provider = "openai"
"""


class OwnSidecar:
    """Start and stop it as often as needed: its state stays in `root`."""

    def __init__(self, root: Path, issuers: str, grants: str, grpc: str = "", more: str = "", egress: str = "") -> None:
        """Write its files.

        Args:
            root: private folder with a short path.
            issuers: `[[issuers]]` tables.
            grants: `[[grants]]` tables.
            grpc: more lines of `[grpc]`.
            more: more tables.
            egress: more lines of `[egress]`.
        """
        root.chmod(0o700)
        self.root = root
        self.port = 0
        self.egress_port = 0
        self._said: list[str] = []
        self._admin = root / "admin" / "admin.sock"
        master = root / "master.key"
        FileMasterKey.create(str(master))
        store = LocalKeys.create(str(root / "keys.json"), FileMasterKey(str(master)), SystemClock())
        store.add("openai-test", "openai", "test", Secret(planted().encode()))
        self._write("policy.toml", f"version = 1\n{grants}")
        self._write(
            "sidecar.toml",
            f"""[sidecar]
name = "own"
state_dir = "{root}/state"
drain_seconds = 0.1
[grpc]
socket = "{root}/run/agent.sock"
{grpc}
[egress]
address = "127.0.0.1:0"
{egress}
[policy]
file = "policy.toml"
[keys]
file = "keys.json"
master_key_file = "master.key"
[alone]
admin_socket = "{self._admin}"
operator_uids = [{os.geteuid()}]
{issuers}
{more}
""",
        )

    def _write(self, name: str, text: str) -> None:
        path = self.root / name
        path.touch(mode=0o600)
        path.write_text(text)

    @property
    def target(self) -> str:
        """Of its Unix socket."""
        return f"unix://{self.root}/run/agent.sock"

    @contextlib.contextmanager
    def running(self, *launcher: str):
        """One life of it, started by `launcher`; a test may kill it with `kill` and begin the next."""
        arguments = broker("sidecar", "--config", str(self.root / "sidecar.toml"))
        with subprocess.Popen([*launcher, *arguments], stderr=subprocess.PIPE, text=True) as process:
            self._process = process
            said = self._said = []
            try:
                for line in process.stderr:
                    said.append(line)
                    if '"serving"' in line and "grpc_port" in (serving := json.loads(line)):
                        self.port = serving["grpc_port"]
                        self.egress_port = serving["egress_port"]
                        break
                else:
                    raise RuntimeError("".join(said[-5:]))
                drain = threading.Thread(target=lambda: said.extend(process.stderr), name="own sidecar's log")
                drain.start()
                yield self
            finally:
                if process.poll() is None:
                    process.terminate()
                process.wait(20)

    def logged(self, event: str) -> dict:
        """The first line of its log with this event, waited for."""
        for _ in range(600):
            for line in tuple(self._said):
                if f'"{event}"' in line:
                    return json.loads(line)
            time.sleep(0.05)
        raise RuntimeError("".join(self._said[-5:]))

    def kill(self) -> None:
        """End it without any goodbye."""
        self._process.kill()
        self._process.wait(20)

    def event(self, kind: str, **members: str) -> dict:
        """The first audit event of a type with these members, as an operator reads it.

        An event is durable before the answer it describes, but it reaches the log that is read here a little later:
        then it is waited for.
        """
        with OperatorClient(f"unix://{self._admin}") as operator:
            for record in operator.follow_events(after_position=0):
                event = record.event()
                if event["type"] == kind and members.items() <= event.items():
                    return event
        raise RuntimeError("the log has ended")

    def refused(self, error: LeaseholdError) -> tuple[str, str]:
        """Reason and detail, as audited, of a refusal that a client was told in other words."""
        with OperatorClient(f"unix://{self._admin}") as operator:
            for record in operator.follow_events(after_position=0):
                event = record.event()
                if event.get("request_id") == error.request_id:
                    return event["reason"], event["details"].get("detail", "")
        raise RuntimeError("the log has ended")
