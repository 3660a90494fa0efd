"""Places that take events, real enough to be talked to: an HTTP server and a syslog server that remember."""

import asyncio
import http.server
import ssl
import threading
from typing import Self

from tests.fakes.keep_alive import KeepAlive


class HttpReceiver:
    """Remembers each POST; answers as told."""

    def __init__(self) -> None:
        """Answers 200."""
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, bytes]] = []
        self.headers: dict[str, str] = {}
        self.hold = threading.Event()
        self.hold.set()
        self.reached = threading.Event()
        receiver = self

        class Handler(KeepAlive, http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.reached.set()
                receiver.hold.wait(30)
                receiver.requests.append(
                    (self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                )
                status, data = receiver.answers.pop(0) if receiver.answers else (200, b"{}")
                self.send_response(status)
                if status in {301, 307}:
                    self.send_header("Location", "/elsewhere")
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class SyslogReceiver:
    """Takes octet-counted frames over TCP or TLS, and datagrams."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Over TLS when a context is given."""
        self.messages: list[bytes] = []
        self.connections = 0
        self._tls = tls
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                length = int(await reader.readuntil(b" "))
                self.messages.append(await reader.readexactly(length))
        except asyncio.IncompleteReadError:
            writer.close()

    async def drop(self) -> None:
        """Close what is open."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def __aenter__(self) -> Self:
        """Serve."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        receiver = self

        class Datagrams(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _address: object) -> None:
                receiver.messages.append(data)

        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        self._transport.close()
        self._server.close()
        await self.drop()
