"""A certified OpenID provider (npm's oidc-provider), in a process of its own: the issuer of workload tokens."""

import base64
import contextlib
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.ports import free_port

HOME = Path(__file__).parent / "oidc"
CLIENT, SECRET = "agents/research/lead", "secret-of-the-tests"


NODE_MAJOR_MIN = 20


def installed() -> bool:
    """Whether a node that runs it and the provider are here (`make test` installs it where there is npm)."""
    node = shutil.which("node")
    if node is None or not (HOME / "node_modules" / "oidc-provider").exists():
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    return int(said.strip().lstrip("v").partition(".")[0] or 0) >= NODE_MAJOR_MIN


@dataclass(frozen=True, slots=True)
class OpenIdProvider:
    """One provider."""

    issuer: str

    @property
    def jwks_url(self) -> str:
        """As its discovery document says."""
        with urllib.request.urlopen(f"{self.issuer}/.well-known/openid-configuration", timeout=20) as answer:
            return json.loads(answer.read())["jwks_uri"]

    def token(self, audience: str) -> str:
        """A workload token (RFC 9068) for one audience, by client credentials."""
        form = {"grant_type": "client_credentials", "resource": f"https://{audience}"}
        credentials = f"{urllib.parse.quote_plus(CLIENT)}:{SECRET}"
        request = urllib.request.Request(
            f"{self.issuer}/token",
            urllib.parse.urlencode(form).encode(),
            {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())["access_token"]


@contextlib.contextmanager
def running():
    """A provider, from its first answer until it is stopped."""
    port = free_port()
    command = ["node", str(HOME / "provider.mjs"), str(port), CLIENT, SECRET]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout.readline().strip() == "ready"
            yield OpenIdProvider(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(20)
