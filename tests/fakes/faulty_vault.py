"""A server that answers every question as one sort of broken Vault does, with the documented status and body."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.fakes.keep_alive import KeepAlive

from leasehold_broker.adapters.vault_session import ANSWER_BYTES_MAX

BROKEN = {
    "sealed": (503, {}, b'{"errors":["Vault is sealed"]}'),
    "standby": (473, {}, b'{"errors":[]}'),
    "no active server": (500, {}, b'{"errors":["local node not active but active cluster node not found"]}'),
    "redirecting standby": (307, {"Location": "http://attacker.invalid/v1/secret"}, b""),
    "rate limited": (429, {"Retry-After": "7"}, b'{"errors":["request path \\"x\\": rate limit quota exceeded"]}'),
    "failing": (500, {}, b'{"errors":["1 error occurred: boom sk-echoed-by-the-server"]}'),
    "bad gateway": (502, {}, b"<html>bad gateway</html>"),
    "not json": (200, {}, b"<html>a captive portal</html>"),
    "a list": (200, {}, b"[1, 2]"),
    "null": (200, {}, b"null"),
    "too deep": (200, {}, b'{"data":' + b"[" * 100_000),
    "too long": (200, {}, b" " * (ANSWER_BYTES_MAX + 1)),
    "wrong shape": (200, {}, b'{"data":{"value":"sk-of-version-1"}}'),
}


class FaultyVault:
    """One HTTP server."""

    def __init__(self, kind: str) -> None:
        """Start it; `kind` is one of BROKEN, or "slow"."""
        self.kind = kind
        self.tokens: list[str] = []
        self.release = threading.Event()
        faulty = self

        class Handler(KeepAlive, BaseHTTPRequestHandler):
            """Answers."""

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                faulty.tokens.append(self.headers.get("X-Vault-Token", ""))
                if self.path.endswith("auth/token/lookup-self"):
                    status, headers, body = 200, {}, b'{"data":{"ttl":0,"renewable":false}}'
                elif faulty.kind == "slow":
                    faulty.release.wait(30)
                    status, headers, body = 200, {}, b"{}"
                else:
                    status, headers, body = BROKEN[faulty.kind]
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the server's names

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="faulty vault")
        self._thread.start()

    def close(self) -> None:
        """Stop it."""
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
