"""Google Secret Manager and Azure Key Vault as far as reading goes, with the documented shapes, over real sockets."""

import base64
import json
import re
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RESOURCE = "https://vault.azure.net"


@dataclass
class Version:
    """One version of a secret."""

    value: str
    enabled: bool = True


@dataclass
class CloudSecrets:
    """Secrets by name, each with its versions, oldest first; `status` answers every question with an error.

    `permissions` are what Google says that the caller has, by secret; `denied` are names that Azure lets nobody read.
    """

    secrets: dict[str, list[Version]] = field(default_factory=dict)
    permissions: dict[str, set[str]] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    status: int = 0
    address: str = ""

    def put(self, name: str, value: str) -> None:
        """Store the next version."""
        self.secrets.setdefault(name, []).append(Version(value))

    def disable(self, name: str) -> None:
        """Disable the latest version."""
        self.secrets[name][-1].enabled = False

    def remove(self, name: str) -> None:
        """Forget every version."""
        del self.secrets[name]

    def google(self, path: str) -> tuple[int, dict]:
        """GET v1/projects/P/secrets/S/versions/V[:access]."""
        asked = re.fullmatch(r"/v1/projects/(\w+)/secrets/([\w-]+)/versions/(\w+)(:access)?", path.partition("?")[0])
        if self.status or asked is None or asked[2] not in self.secrets:
            return self._google_error(self.status or 404)
        versions = self.secrets[asked[2]]
        number = len(versions) if asked[3] == "latest" else int(asked[3])
        version = versions[number - 1]
        name = f"projects/{asked[1]}/secrets/{asked[2]}/versions/{number}"
        if not asked[4]:
            state = "ENABLED" if version.enabled else "DISABLED"
            return 200, {"name": name, "createTime": "2026-11-01T10:00:00.123456Z", "state": state}
        if not version.enabled:
            return self._google_error(400)
        data = base64.b64encode(version.value.encode()).decode()
        return 200, {"name": name, "payload": {"data": data}}

    def google_permissions(self, path: str, body: bytes) -> tuple[int, dict]:
        """POST v1/projects/P/secrets/S:testIamPermissions: those asked for that the caller has; none for no secret."""
        asked = re.fullmatch(r"/v1/(projects/\w+/secrets/[\w-]+):testIamPermissions", path.partition("?")[0])
        if self.status or asked is None:
            return self._google_error(self.status or 404)
        held = [each for each in json.loads(body)["permissions"] if each in self.permissions.get(asked[1], ())]
        return 200, {"permissions": held} if held else {}

    def _google_error(self, status: int) -> tuple[int, dict]:
        names = {400: "FAILED_PRECONDITION", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
        said = "Secret echoed sk-nothing"
        return status, {"error": {"code": status, "message": said, "status": names.get(status, "INTERNAL")}}

    def azure(self, path: str) -> tuple[int, dict]:
        """GET /secrets/NAME/[VERSION]?api-version=V."""
        asked = re.fullmatch(r"/secrets/([\w-]+)/?", path.partition("?")[0])
        denied = asked is not None and asked[1] in self.denied
        if self.status or denied or asked is None or asked[1] not in self.secrets:
            codes = {403: "Forbidden", 404: "SecretNotFound", 429: "Throttled"}
            status = self.status or (403 if denied else 404)
            return status, {"error": {"code": codes.get(status, "Internal"), "message": "echoed sk-nothing"}}
        versions = self.secrets[asked[1]]
        version = versions[-1]
        if not version.enabled:
            inner = {"code": "SecretDisabled"}
            return 403, {
                "error": {"code": "Forbidden", "message": "Operation get is not allowed.", "innererror": inner}
            }
        attributes = {"enabled": True, "created": 1_790_000_000 + len(versions), "updated": 1_790_000_000}
        id_ = f"{self.address}/secrets/{asked[1]}/{len(versions):032x}"
        return 200, {"value": version.value, "id": id_, "attributes": attributes}


def serve(secrets: CloudSecrets, kind: str, tls: ssl.SSLContext | None = None):
    """Start a server of this kind ("google" or "azure") for them; call what comes back to stop it."""

    class Handler(BaseHTTPRequestHandler):
        """Answers."""

        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            """One question; Azure's without a token is challenged."""
            self.answer(lambda: getattr(secrets, kind)(self.path))

        def do_POST(self) -> None:
            """Google's question about permissions."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(lambda: secrets.google_permissions(self.path, body))

        def answer(self, right) -> None:
            """What is right, to whom may have it."""
            headers = {"Content-Type": "application/json"}
            if kind == "azure" and not self.headers.get("Authorization"):
                headers["WWW-Authenticate"] = (
                    f'Bearer authorization="https://login.microsoftonline.com/tenant", resource="{RESOURCE}"'
                )
                status, answer = 401, {"error": {"code": "Unauthorized"}}
            else:
                status, answer = right()
            body = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    secrets.address = f"{'http' if tls is None else 'https'}://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name=f"{kind} secrets")
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return stop
