"""A real OpenBao server for tests: in memory, on loopback, with a Unix process of its own."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.fakes.ports import free_port

BAO = Path(sys.executable).parent / "bao"
ROOT_TOKEN = "root-of-the-tests"
START_SECONDS_MAX = 60.0


def installed() -> str:
    """Where the server's command is, or "" (then its tests are skipped: requirements/servers.txt brings it)."""
    return str(BAO) if BAO.exists() else shutil.which("bao") or ""


class OpenBao:
    """One server; an operator's hand on it."""

    def __init__(self, address: str, unseal_key: str) -> None:
        """Know where it is."""
        self.address = address
        self.unseal_key = unseal_key

    def ask(self, method: str, path: str, body: dict | None = None, token: str = ROOT_TOKEN) -> dict:
        """One question as the operator."""
        request = urllib.request.Request(
            f"{self.address}/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": token},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"{}")

    def put(self, path: str, **data: str) -> None:
        """The next version of an entry of the KV store at secret/."""
        self.ask("POST", f"secret/data/{path}", {"data": data})

    def forget(self, path: str) -> None:
        """Every version of an entry."""
        self.ask("DELETE", f"secret/metadata/{path}")

    def policy(self, name: str, *paths: str) -> None:
        """A policy that lets these paths be read."""
        rules = {path: {"capabilities": ["read"]} for path in paths}
        self.ask("PUT", f"sys/policies/acl/{name}", {"policy": json.dumps({"path": rules})})

    def seal(self) -> None:
        """Seal the server."""
        self.ask("PUT", "sys/seal")

    def unseal(self) -> None:
        """Unseal it and wait until it serves."""
        self.ask("PUT", "sys/unseal", {"key": self.unseal_key})
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, OSError):
                self.ask("GET", "sys/health")
                return
            time.sleep(0.05)
        raise RuntimeError("the server did not come back")


@contextlib.contextmanager
def running():
    """A server, from its first answer until it is stopped."""
    port = free_port()
    command = [
        installed(),
        "server",
        "-dev",
        "-dev-no-store-token",
        f"-dev-root-token-id={ROOT_TOKEN}",
        f"-dev-listen-address=127.0.0.1:{port}",
        "-log-level=error",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            unseal_key = ""
            for line in process.stdout:
                if line.startswith("Unseal Key:"):
                    unseal_key = line.split()[-1]
                if "Development mode" in line:
                    break
            server = OpenBao(f"http://127.0.0.1:{port}", unseal_key)
            server.ask("GET", "sys/health")
            yield server
        finally:
            process.terminate()
            process.wait(30)
