"""Answers that do not end, or not soon, over real sockets; any other one is read as the library reads it."""

import contextlib
import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from tests.fakes.keep_alive import KeepAlive

from leasehold_broker.adapters.bounded_answers import AnswerTooLongError, BoundedAnswers

BYTES_MAX = 100_000
WHOLE = b"x" * BYTES_MAX


class Server(KeepAlive, BaseHTTPRequestHandler):
    """Answers as the path says."""

    stop: threading.Event

    def do_GET(self) -> None:
        """One answer."""
        with contextlib.suppress(OSError):
            getattr(self, self.path[1:])()

    def whole(self):
        """As long as may be."""
        self._sent(WHOLE)

    def zipped(self):
        """The same, compressed."""
        self._sent(gzip.compress(WHOLE), "gzip")

    def bomb(self):
        """Small, and large once it is decoded."""
        self._sent(gzip.compress(b"x" * (BYTES_MAX + 1)), "gzip")

    def chunked(self):
        """In chunks."""
        self._head(("Transfer-Encoding", "chunked"))
        for start in range(0, BYTES_MAX, 1000):
            self.wfile.write(b"3e8\r\n" + WHOLE[start : start + 1000] + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def endless(self):
        """For ever."""
        self._head(("Transfer-Encoding", "chunked"))
        while not self.stop.is_set():
            self.wfile.write(b"3e8\r\n" + WHOLE[:1000] + b"\r\n")

    def slow(self):
        """A byte now and then, never a silence."""
        self._head(("Content-Length", "1000"))
        while not self.stop.wait(0.05):
            self.wfile.write(b"x")

    def _sent(self, body, encoding="identity"):
        self._head(("Content-Length", str(len(body))), ("Content-Encoding", encoding))
        self.wfile.write(body)

    def _head(self, *headers):
        self.send_response(200)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def ask():
    """Asks for a path with a session that is held to the size, and so many seconds."""
    stop = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answering", (Server,), {"stop": stop}))
    threading.Thread(target=server.serve_forever, args=(0.02,), name="server").start()
    with requests.Session() as session:

        def get(path, seconds_max=60.0):
            session.mount("http://", BoundedAnswers(BYTES_MAX, seconds_max))
            return session.get(f"http://127.0.0.1:{server.server_port}/{path}", timeout=30)

        yield get
        stop.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["whole", "zipped", "chunked"])
def test_an_answer_within_the_bounds_is_whole(ask, path):
    """To its last byte, decoded, however it is framed."""
    assert ask(path).content == WHOLE


@pytest.mark.parametrize("path", ["endless", "bomb"])
def test_a_longer_one_is_refused(ask, path):
    """It is read no further than that, also where it is small until it is decoded."""
    with pytest.raises(AnswerTooLongError):
        ask(path)


def test_one_that_drips_is_refused(ask):
    """The library's timeout is for each silence, and there is none: the time of the whole answer is what ends it."""
    with pytest.raises(AnswerTooLongError):
        ask("slow", seconds_max=0.2)
