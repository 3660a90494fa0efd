"""An issuer that answers as a test wants it to, also wrongly. It signs nothing: clients of ours check no signature."""

import base64
import contextlib
import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CLIENT = "leasehold-cli"


def unsigned(claims: dict, header: dict | None = None) -> str:
    """A JWT of these claims."""
    parts = (json.dumps(header or {"alg": "ES256", "typ": "JWT"}).encode(), json.dumps(claims).encode(), b"signature")
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class ScriptedIssuer:
    """Its configuration can be changed; its other answers are given in turn, the last one for good."""

    def __init__(self) -> None:
        """Nothing is served yet."""
        self.url = ""
        self.configuration: dict = {}
        self.answers: list = []
        self.asked: list[tuple[str, dict]] = []
        self.raw: tuple[int, dict, bytes] | None = None

    def claims(self, **more) -> dict:
        """Of a good ID token."""
        now = int(time.time())
        good = {"iss": self.url, "sub": "ada", "aud": CLIENT, "iat": now, "exp": now + 600}
        return {name: value for name, value in (good | more).items() if value is not None}

    def tokens(self, header: dict | None = None, **more) -> dict:
        """A good answer of the token endpoint, whose ID token has `more`."""
        return {"token_type": "Bearer", "access_token": "opaque", "id_token": unsigned(self.claims(**more), header)}

    @contextlib.contextmanager
    def serving(self):
        """On a loopback port."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer._answer(self, {})

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                issuer._answer(self, dict(urllib.parse.parse_qsl(form)))

            def log_message(self, *_) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.configuration = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/auth",
            "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device",
            "revocation_endpoint": f"{self.url}/revoke",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _answer(self, request: BaseHTTPRequestHandler, form: dict) -> None:
        if self.raw is not None:
            status, headers, body = self.raw
        elif request.path.startswith("/.well-known/"):
            status, headers, body = 200, {}, json.dumps(self.configuration).encode()
        else:
            self.asked.append((request.path, form))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            status, said = answer if isinstance(answer, tuple) else (200, answer)
            headers, body = {}, json.dumps(said).encode()
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)
