"""The redirect address on this machine (RFC 8252, section 7.3). Owns one answer of the browser, and its checks.

Whoever is on this machine, and every page in its browser, can ask here. Only an answer with our state counts; any other
is told off and waited past, so that nobody can end a sign-in that is not theirs. Nothing of a request is shown.
"""

import contextlib
import hmac
import queue
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn

from leasehold.signin.asking import failed

PATH = "/signed-in"
HANDLERS_MAX = 16
REQUEST_SECONDS_MAX = 5.0
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>leasehold</title>
<p>{}</p></html>
"""
_DONE = _PAGE.format("You may close this page: the terminal goes on.")
_NOT_DONE = _PAGE.format("This is not the answer that the terminal waits for.")


@dataclass(frozen=True, slots=True)
class Redirect:
    """The open address.

    Args:
        uri: where the issuer is to send the browser.
    """

    uri: str
    _answers: "queue.Queue[Mapping[str, str]]"

    def answer(self, wait_seconds: float) -> Mapping[str, str]:
        """What the browser brings: the parameters of the first answer with our state.

        Raises:
            IdentityRejected: nobody came in time.
        """
        try:
            return self._answers.get(timeout=wait_seconds)
        except queue.Empty:
            message = f"nobody signed in within {wait_seconds:g} s"
            raise failed(message) from None


@contextlib.contextmanager
def redirect(state: str, port: int = 0) -> Iterator[Redirect]:
    """Listen on 127.0.0.1, from now until the end of the block.

    Args:
        state: that counts as ours.
        port: 0 for any, as the issuer should allow (RFC 8252, section 7.3); some want the registered one.

    Raises:
        IdentityRejected: the port is taken.
    """
    answers: queue.Queue[Mapping[str, str]] = queue.Queue(maxsize=1)

    class Handler(_Handler):
        own_state = state
        own_answers = answers

    try:
        server = _Server(("127.0.0.1", port), Handler)
    except OSError as error:
        message = f"cannot listen on 127.0.0.1:{port}: {error.strerror}"
        raise failed(message) from None
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="leasehold-redirect", daemon=True)
    with server:
        thread.start()
        try:
            yield Redirect(f"http://127.0.0.1:{server.server_port}{PATH}", answers)
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingMixIn, HTTPServer):
    """Of a bounded number of threads, so that a connection that says nothing holds up no other."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 2 * HANDLERS_MAX
    allow_reuse_address = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._free = threading.BoundedSemaphore(HANDLERS_MAX)

    def process_request(self, request: object, client_address: object) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)  # type: ignore[arg-type]
            return
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._free.release()

    def handle_error(self, *_: object) -> None:
        """A browser that hangs up is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    own_state: str
    own_answers: "queue.Queue[Mapping[str, str]]"
    timeout = REQUEST_SECONDS_MAX
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        """The browser, or somebody else."""
        answer = self._answer_of_ours()
        try:
            self._show(200 if answer else 400, _DONE if answer else _NOT_DONE)
        finally:
            # Last: whoever waits for it stops listening.
            if answer:
                with contextlib.suppress(queue.Full):  # the same answer again
                    self.own_answers.put_nowait(answer)

    def _show(self, status: int, page: str) -> None:
        body = page.encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _answer_of_ours(self) -> Mapping[str, str] | None:
        # A page elsewhere whose name was made to mean 127.0.0.1 says its own name here.
        if self.headers.get_all("Host") != [f"127.0.0.1:{self.server.server_port}"]:  # type: ignore[attr-defined]
            return None
        parts = urllib.parse.urlsplit(self.path)
        try:
            pairs = urllib.parse.parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True, max_num_fields=16)
        except ValueError:
            return None
        answer = dict(pairs)
        ours = hmac.compare_digest(answer.get("state", "").encode(), self.own_state.encode())
        return answer if ours and parts.path == PATH and len(answer) == len(pairs) else None

    def log_message(self, *_: object) -> None:
        """Nothing: the path holds the code."""
