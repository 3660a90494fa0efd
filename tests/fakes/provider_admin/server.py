"""A server for the fakes of admin APIs: real HTTP on loopback, and faults planted between effect and answer.

A fake is a state machine with one method, `handle`. What it says in errors echoes what it was sent, as careless servers
do: nobody may pass that on.
"""

import json
import re
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.fakes.keep_alive import KeepAlive
from tests.fakes.planted import planted

ADMIN_KEY = planted("admin-canary-7f3a9c1e5b2d4860")


@dataclass(frozen=True)
class Request:
    """One request, parsed."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict
    raw: bytes = b""


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next request that fits.

    Args:
        status: answered; 0: the connection is closed without an answer.
        on: "METHOD /path", a space and the body have to contain a match of this expression.
        effect: it is done all the same.
        body, headers: of the answer; a body that is text is sent as it is.
    """

    status: int
    on: str = ""
    effect: bool = False
    body: object = None
    headers: dict = field(default_factory=dict)


class AnswerError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, body: object, headers: dict | None = None) -> None:
        """With this status and body."""
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


@dataclass
class AdminFake:
    """What every fake has: planted faults, and what was asked.

    `gate` is asked "before" and "after" each request: False closes the connection, before or after the effect.
    """

    faults: list[Fault] = field(default_factory=list)
    gate: Callable[[Request, str], bool] = lambda _request, _where: True
    asked: list[Request] = field(default_factory=list)
    serial: int = 0

    def next_id(self) -> int:
        """A number that was not given before."""
        self.serial += 1
        return self.serial

    def handle(self, request: Request) -> tuple[int, object]:
        """Status and body, or AnswerError."""
        raise NotImplementedError

    def error(self, status: int, request: Request) -> object:
        """The body of an error of this provider, echoing what was sent."""
        del status
        return {"error": {"message": f"{request.headers} {request.body}"}}

    def answer(self, request: Request) -> tuple[int, dict, bytes] | None:
        """What is sent back; None: the connection is closed."""
        if not self.gate(request, "before"):
            return None
        found = self._answer(request)
        return found if self.gate(request, "after") else None

    def _answer(self, request: Request) -> tuple[int, dict, bytes] | None:
        self.asked.append(request)
        fault = next(
            (
                one
                for one in self.faults
                if re.search(one.on, f"{request.method} {request.path} {request.raw.decode()}")
            ),
            None,
        )
        if fault is not None:
            self.faults.remove(fault)
        headers: dict = {}
        if fault is None or fault.effect:
            try:
                status, body = self.handle(request)
            except AnswerError as wrong:
                status, body, headers = wrong.status, wrong.body, wrong.headers
        if fault is not None:
            if not fault.status:
                return None
            status, headers = fault.status, fault.headers
            body = self.error(status, request) if fault.body is None else fault.body
        if isinstance(body, bytes):
            return status, headers, body
        return status, headers, b"" if status == 204 else json.dumps(body).encode()


@contextmanager
def serving(fake: AdminFake):
    """Its origin."""
    threads = threading.Lock()

    class Handler(KeepAlive, BaseHTTPRequestHandler):
        """Answers."""

        def do_GET(self) -> None:
            """One request."""
            parts = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(
                self.command,
                parts.path,
                {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()},
                headers,
                _body(data, headers.get("content-type", "")),
                data,
            )
            with threads:
                found = fake.answer(request)
            if found is None:
                self.close_connection = True
                return
            status, more, body = found
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **more}.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names that the library calls

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="admin fake")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _body(data: bytes, kind: str) -> dict:
    if kind.startswith("application/x-www-form-urlencoded"):
        return {name: values[0] for name, values in parse_qs(data.decode(), keep_blank_values=True).items()}
    return json.loads(data) if data else {}
