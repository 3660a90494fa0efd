"""A small HTTP server that puts a provider module between an official SDK and a canned vendor answer.

It does with the module what the egress does: route, credential, plan, request, meter; refusals in the vendor's shape.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from tests.fakes.keep_alive import KeepAlive

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.egress.form_gate import form_boundary, parse_form
from leasehold_broker.ports.provider import Meter, Provider, Route, UpstreamRequest

STATUS = {Reason.BUDGET_EXHAUSTED: 402, Reason.LEASE_EXPIRED: 401, Reason.RATE_LIMITED: 429, Reason.OVERLOADED: 503}


@dataclass
class Exchange:
    """What one request became."""

    route: Route | None = None
    credential: str | None = None
    plan: CallPlan | None = None
    upstream: UpstreamRequest | None = None
    meter: Meter | None = None
    refusal: Refusal | None = None

    @property
    def sent(self) -> Any:
        """The body that would go upstream."""
        assert self.upstream is not None
        kind = {"content-type": dict(self.upstream.headers)["content-type"]}
        if self.route is not None and self.route.form:
            return parse_form(form_boundary(kind), self.upstream.body)
        return msgspec.json.decode(self.upstream.body)


@dataclass
class VendorServer:
    """Answers every accepted request with `answer`; refuses with `refuse` when set; cuts the stream with `cut`."""

    provider: Provider
    answer: bytes = b"{}"
    content_type: str = "application/json"
    status: int = 200
    refuse: Refusal | None = None
    cut: Refusal | None = None
    limit: int | None = None
    port: int = 0
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        """What the SDK is given."""
        return f"http://127.0.0.1:{self.port}/{self.provider.name}{self.provider.sdk_path}"

    @property
    def last(self) -> Exchange:
        """The last exchange."""
        return self.exchanges[-1]

    def handle(self, handler: BaseHTTPRequestHandler) -> tuple[int, str, list[bytes]]:
        """One request: status, content type and the pieces of the answer."""
        exchange = Exchange()
        self.exchanges.append(exchange)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        path, _, query = handler.path.removeprefix(f"/{self.provider.name}").partition("?")
        raw = handler.rfile.read(int(headers.get("content-length", "0")))
        try:
            exchange.route = route = self.provider.route(handler.command, path, query)
            exchange.credential = self.provider.credential(headers, query)
            body = None
            if route.form:
                body = parse_form(form_boundary(headers), raw)
            elif route.takes_body:
                body = msgspec.json.decode(raw)
            exchange.plan = plan = self.provider.plan(route, headers, body, len(raw))
            if self.refuse is not None:
                raise self.refuse
            limit = self.limit if plan.output_limited and plan.output_tokens_stated is None else None
            exchange.upstream = self.provider.request(route, headers, body, limit)
        except Refusal as refusal:
            exchange.refusal = refusal
            status = STATUS.get(refusal.reason, 403)
            return status, "application/json", [self.provider.refusal_body(status, refusal, "req-1")]
        exchange.meter = meter = self.provider.meter(route, plan, body, self.content_type)
        pieces = [meter.feed(self.answer[at : at + 7]) for at in range(0, len(self.answer), 7)]
        pieces.append(meter.finish())
        if self.cut is not None:
            pieces.append(self.provider.refusal_event(self.cut, "req-1"))
        return self.status, self.content_type, [piece for piece in pieces if piece]


def _handler(server: VendorServer) -> type[BaseHTTPRequestHandler]:
    class Handler(KeepAlive, BaseHTTPRequestHandler):
        def _answer(self) -> None:
            status, content_type, pieces = server.handle(self)
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(sum(map(len, pieces))))
            self.send_header("x-should-retry", "false")
            # urllib3 closes the kept connections of a pool only when the pool is collected, whatever its client closes.
            self.send_header("connection", "close")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(piece)

        do_GET = do_POST = _answer  # noqa: N815 - the names that http.server calls

    return Handler


@contextmanager
def serving(server: VendorServer) -> Iterator[VendorServer]:
    """Run the server on loopback while the block lasts."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    server.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
