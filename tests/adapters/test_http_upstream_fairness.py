"""One busy provider must not hold up everyone else's calls."""

import asyncio
import socket
import threading
import time

import uvloop

from leasehold_broker.adapters.http_upstream import HttpUpstream, UpstreamOrigin
from leasehold_broker.ports.provider import UpstreamRequest

SIZE = 8 * 1024 * 1024
READ_BYTES_MAX = 256 * 1024
"""What uvloop takes from a socket at once."""


class Slow:
    """A listener that takes a while with each read, as metering does; counts what came in one turn of the loop."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.turn = 0
        self.in_turn: dict[int, int] = {}
        self.over = asyncio.Event()

    def answer_started(self, status, headers) -> None:
        """The head is not looked at."""

    def body_received(self, data) -> None:
        """Count, and take time: meanwhile the socket fills again."""
        self.in_turn[self.turn] = self.in_turn.get(self.turn, 0) + len(data)
        time.sleep(0.005)

    def answer_finished(self) -> None:
        """Over."""
        self.over.set()

    def answer_failed(self, failure) -> None:
        """Over."""
        del failure
        self.over.set()

    async def count_turns(self) -> None:
        """One up in each turn of the loop."""
        while not self.over.is_set():
            self.turn += 1
            await asyncio.sleep(0)


def flood(listener: socket.socket) -> None:
    """Answer one request with as many bytes as fast as they go."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE + b"x" * SIZE)


async def read_all(origin: str) -> Slow:
    """One call to its end."""
    slow = Slow()
    upstream = HttpUpstream([UpstreamOrigin(origin, allow_private=True)])
    request = UpstreamRequest("GET", "/", (), b"")
    async with asyncio.timeout(240), asyncio.TaskGroup() as group:
        group.create_task(slow.count_turns())
        upstream.send(origin, request, lambda: ("x-api-key", b"k"), slow)
        await slow.over.wait()
    await upstream.close()
    return slow


def test_a_flood_of_an_answer_leaves_a_turn_to_the_others():
    """On the sidecar's loop, which reads up to 8 MB in a row: one read of a busy answer, then it is others' turn."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        server = threading.Thread(target=flood, args=(listener,))
        server.start()
        slow = runner.run(read_all(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        server.join(60)
    assert sum(slow.in_turn.values()) == SIZE
    assert max(slow.in_turn.values()) <= READ_BYTES_MAX
