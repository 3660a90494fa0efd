"""An advisory database on loopback that speaks OSV's API as it is documented. Owns how it may misbehave.

https://google.github.io/osv.dev/post-v1-querybatch/ and /get-v1-vulns/: results in the order of the queries, `{}` where
there is nothing, ids and dates only, pages by token; records of advisories in the OSV schema.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JINJA = ("jinja2", "2.4.1")
Answer = dict[str, Any]


def record(name: str, package: str, summary: str, fixed: str, **more: object) -> Answer:
    """An advisory in the OSV schema."""
    events = [{"introduced": "0"}, {"fixed": fixed}]
    affected = {
        "package": {"name": package, "ecosystem": "PyPI", "purl": f"pkg:pypi/{package}"},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
    }
    dates = {"published": "2026-01-02T03:04:05Z", "modified": "2026-01-03T03:04:05.123456Z"}
    return {"id": name, "schema_version": "1.7.0", "summary": summary, "affected": [affected], **dates, **more}


@dataclass(slots=True)
class AdvisoryDatabase:
    """What it knows, and what it was asked."""

    flawed: dict[tuple[str, str], list[str]] = field(default_factory=lambda: {JINJA: ["PYSEC-2014-8"]})
    records: dict[str, Answer] = field(default_factory=dict)
    page: int = 1000
    spoil: Callable[[str, bytes], tuple[int, bytes]] | None = None
    """Makes another answer of the path and the right one."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""

    def batch(self, queries: list[Answer]) -> Answer:
        """One result for each query, in order."""
        return {"results": [self._result(query) for query in queries]}

    def _result(self, query: Answer) -> Answer:
        assert set(query) <= {"package", "version", "page_token"}
        assert query["package"]["ecosystem"] == "PyPI"
        pin = (query["package"]["name"], query["version"])
        self.asked.append(pin)
        begin, names = int(query.get("page_token", "0")), self.flawed.get(pin, [])
        shown = [{"id": name, "modified": "2026-01-03T03:04:05.123456Z"} for name in names[begin : begin + self.page]]
        more = {"next_page_token": str(begin + self.page)} if begin + self.page < len(names) else {}
        return {"vulns": shown, **more} if shown else {}

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body."""
        status, told = 404, {"code": 5, "message": "Bug not found."}
        if path == "/v1/querybatch":
            status, told = 200, self.batch(json.loads(body)["queries"])
        elif (name := path.removeprefix("/v1/vulns/")) in self.records:
            status, told = 200, self.records[name]
        said = json.dumps(told).encode()
        return self.spoil(path, said) if self.spoil else (status, said)


@contextmanager
def advisory_database() -> Iterator[AdvisoryDatabase]:
    """Serve one until the end."""
    database = AdvisoryDatabase()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, said = database.answer(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def do_GET(self) -> None:
            self.headers["content-length"] = "0"
            self.do_POST()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    database.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield database
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=60)
