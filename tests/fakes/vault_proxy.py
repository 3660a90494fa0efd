"""Stands before a real Vault and, when told to, fails as the network or a load balancer does."""

import contextlib
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.fakes.keep_alive import KeepAlive

PASSED_ON = ("X-Vault-Token", "Content-Type")


class VaultProxy:
    """One proxy.

    `status`: answered instead of asking; `slow`: nothing is answered until it is healed; `answers`: by path, what is
    answered in place of an engine that this server does not have; `gate` is asked "before" and "after" each question:
    False closes the connection.
    """

    def __init__(self, address: str) -> None:
        """Pass everything on to the server at `address`."""
        self.status = 0
        self.slow = False
        self.answers: dict[str, bytes] = {}
        self.gate: Callable[[str, str], bool] = lambda _path, _where: True
        self._released = threading.Event()
        proxy = self

        class Handler(KeepAlive, BaseHTTPRequestHandler):
            """Passes one question on."""

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
                if not proxy.gate(self.path, "before"):
                    self.close_connection = True
                    return
                if proxy.slow:
                    proxy._released.wait(30)
                status, answer = proxy.status, b"<html>no</html>"
                if not status and self.path in proxy.answers:
                    status, answer = 200, proxy.answers[self.path]
                elif not status:
                    status, answer = self._ask(body)
                if not proxy.gate(self.path, "after"):
                    self.close_connection = True
                    return
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def _ask(self, body: bytes | None) -> tuple[int, bytes]:
                headers = {name: self.headers[name] for name in PASSED_ON if self.headers.get(name)}
                asked = urllib.request.Request(f"{address}{self.path}", body, headers, method=self.command)
                try:
                    with urllib.request.urlopen(asked, timeout=30) as answer:
                        return answer.status, answer.read()
                except urllib.error.HTTPError as refused:
                    with refused:
                        return refused.code, refused.read()

            do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the server's names

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="vault proxy")
        self._thread.start()

    def heal(self) -> None:
        """Pass everything on again."""
        self.status, self.slow = 0, False
        self._released.set()
        self._released = threading.Event()

    def close(self) -> None:
        """Stop."""
        self.heal()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
