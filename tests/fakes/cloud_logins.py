"""Secrets of Google and Azure as a process of ours finds them: who reads them has exchanged a workload token before.

The stores ask for the tokens that the places beside them give out: Google's STS, Entra over TLS.
"""

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.fakes.certificates import Authority
from tests.fakes.cloud_secrets import RESOURCE, AzureSecrets, GoogleSecrets, serve
from tests.fakes.planted import planted

PROJECT, POOL = "project1", "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"
TENANT, CLIENT = "0b1c2d3e-0000-4000-8000-000000000001", "0b1c2d3e-0000-4000-8000-000000000002"
WORKLOAD_TOKEN = "of-the-workload.in-a-file.signed"
GOOGLE_TOKEN, AZURE_TOKEN = planted("access-token-google"), planted("access-token-azure")


class Google(GoogleSecrets):
    """Secrets for who has exchanged its token."""

    def challenge(self, headers):
        """See the base."""
        return None if headers.get("authorization") == f"Bearer {GOOGLE_TOKEN}" else {"WWW-Authenticate": "Bearer"}


class Azure(AzureSecrets):
    """Secrets for our application."""

    def challenge(self, headers):
        """See the base."""
        if headers.get("authorization") == f"Bearer {AZURE_TOKEN}":
            return None
        at = f"https://login.microsoftonline.com/{TENANT}"
        return {"WWW-Authenticate": f'Bearer authorization="{at}", resource="{RESOURCE}"'}


@dataclass
class Logins:
    """Gives out tokens for the workload token, as each place documents it."""

    origin: str = ""
    given: list[str] = field(default_factory=list)

    def answer(self, path: str, form: dict[str, str]) -> tuple[int, object]:
        """Status and body."""
        at = f"{self.origin}/{TENANT}"
        if path == f"/{TENANT}/v2.0/.well-known/openid-configuration":
            ends = {
                "token_endpoint": f"{at}/oauth2/v2.0/token",
                "authorization_endpoint": f"{at}/oauth2/v2.0/authorize",
            }
            return 200, ends | {"issuer": f"{at}/v2.0"}
        if path == "/v1/token" and (form.get("subject_token"), form.get("audience")) == (WORKLOAD_TOKEN, POOL):
            self.given.append(path)
            kind = "urn:ietf:params:oauth:token-type:access_token"
            told = {"access_token": GOOGLE_TOKEN, "issued_token_type": kind, "token_type": "Bearer"}
            return 200, told | {"expires_in": 3600}
        shown = (form.get("client_assertion"), form.get("client_id"), form.get("scope", "").split(" ")[0])
        if path == f"/{TENANT}/oauth2/v2.0/token" and shown == (WORKLOAD_TOKEN, CLIENT, f"{RESOURCE}/.default"):
            self.given.append(path)
            return 200, {"token_type": "Bearer", "expires_in": 3599, "access_token": AZURE_TOKEN}
        return 401, {"error": "invalid_client", "error_description": "no"}


@dataclass
class Cloud:
    """One of them, running; `store` is what the table of [[keys.stores]] says of it."""

    secrets: Google | Azure
    logins: Logins
    store: str


@contextlib.contextmanager
def google(_folder: Path) -> Iterator[Cloud]:
    """Google Secret Manager."""
    secrets = Google()
    with contextlib.ExitStack() as stack:
        stack.callback(serve(secrets))
        logins = stack.enter_context(_logins(None))
        ends = f'endpoint = "{secrets.address}"\nsts_endpoint = "{logins.origin}"'.replace("localhost", "127.0.0.1")
        yield Cloud(secrets, logins, f'kind = "gcp"\nproject = "{PROJECT}"\naudience = "{POOL}"\n{ends}')


@contextlib.contextmanager
def azure(folder: Path) -> Iterator[Cloud]:
    """Azure Key Vault."""
    authority, tls = Authority(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue().files(folder, "cloud"))
    (folder / "cloud-ca.pem").write_bytes(authority.pem)
    secrets = Azure()
    with contextlib.ExitStack() as stack:
        stack.callback(serve(secrets, tls))
        logins = stack.enter_context(_logins(tls))
        who = f'tenant_id = "{TENANT}"\nclient_id = "{CLIENT}"\nauthority = "{logins.origin}"'
        at = f'vault_url = "{secrets.address}"\nca_file = "{folder}/cloud-ca.pem"'
        yield Cloud(secrets, logins, f'kind = "azure"\n{at}\n{who}')


@contextlib.contextmanager
def _logins(tls: ssl.SSLContext | None) -> Iterator[Logins]:
    logins = Logins()

    class Handler(BaseHTTPRequestHandler):
        """Answers."""

        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            """One request."""
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            form = {name: values[0] for name, values in parse_qs(data.decode()).items()}
            status, answer = logins.answer(urlsplit(self.path).path, form)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name that the library calls

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    logins.origin = f"{'http' if tls is None else 'https'}://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="logins")
    thread.start()
    try:
        yield logins
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
