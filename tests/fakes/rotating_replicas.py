"""Two collectors as operators run them, over one PostgreSQL and one store of keys, that rotate a provider's keys."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.fakes.engines import PostgresEngine
from tests.fakes.rotation_stage import RotationStage

from leasehold.custodian import KeyClient
from leasehold.operators import OperatorClient
from leasehold_broker.demo.stage import broker

NAMES = ("east", "west")


class RotatingReplicas:
    """Files of both replicas in `root`, and their processes. The sidecar of the stage belongs to "west"."""

    def __init__(self, root: Path, origin: str, postgres, rotation: str = "", more: str = "") -> None:
        """Write everything; see `RotationStage`."""
        self.stage = RotationStage(root, origin, rotation, more)
        self.engine = PostgresEngine(postgres)
        self._postgres = postgres
        at = self.engine.at
        (root / "password").write_text("superuser-of-the-tests\n")
        (root / "password").chmod(0o600)
        url = at.url.replace(":superuser-of-the-tests@", "@")
        store = f'[store]\nengine = "postgres"\nurl = "{url}"\nschema = "{at.schema}"\npassword_file = "password"\n'
        plain = (root / "collector.toml").read_text()
        for name in NAMES:
            text = plain.replace('name = "centre"', f'name = "{name}"')
            text = text.replace(f"{root}/centre", f"{root}/{name}")
            self._write(root / f"{name}.toml", f'{text}\n{store}\n[audit]\norigin = "log.example/one"\n')
        sidecar = (root / "sidecar.toml").read_text()
        self._write(root / "sidecar.toml", sidecar.replace("centre.sock", "west.sock"))
        self.root = root
        self.said: dict[str, list[str]] = {name: [] for name in NAMES}
        make = broker("collector", "--config", str(root / "east.toml"), "--make-checkpoint-key")
        made = subprocess.run(make, check=False, capture_output=True, text=True, timeout=120)
        if made.returncode:
            raise RuntimeError(made.stderr)
        (root / "west").mkdir(mode=0o700)
        (root / "west" / "checkpoint.key").write_bytes((root / "east" / "checkpoint.key").read_bytes())
        (root / "west" / "checkpoint.key").chmod(0o600)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o600)

    @contextlib.contextmanager
    def process(self, name: str) -> Iterator[subprocess.Popen]:
        """A replica, once it serves; killed at the end if it still runs."""
        command = broker("collector", "--config", str(self.root / f"{name}.toml"))
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                for line in process.stderr:
                    self.said[name].append(line)
                    if '"serving"' in line and "grpc_port" in json.loads(line):
                        break
                else:
                    raise RuntimeError("".join(self.said[name][-5:]))
                drain = threading.Thread(target=lambda: self.said[name].extend(process.stderr), name=f"{name}'s log")
                drain.start()
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait(30)

    def end_leads(self) -> None:
        """What the server does to the session of a replica that has been silent for long, without the wait."""
        held = "SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"
        self._postgres.sql(f"SELECT pg_terminate_backend(pid) FROM ({held}) held")

    def custodian(self, name: str) -> KeyClient:
        """A client of this replica, by uid."""
        return KeyClient(f"unix://{self.root}/{name}.sock", None, timeout_seconds=30)

    def operators(self, name: str) -> OperatorClient:
        """The same for other things."""
        return OperatorClient(f"unix://{self.root}/{name}.sock", timeout_seconds=30)

    def rotation_events(self, name: str) -> list[dict]:
        """What the log says of rotations."""
        with self.operators(name) as client:
            found = [record.event() for record in client.events(key="openai-test")]
        return [event for event in found if event["type"].startswith("key.rotation_")]
