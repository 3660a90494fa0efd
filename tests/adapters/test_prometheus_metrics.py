"""The metrics endpoint before hostile neighbours: few connections, short requests, one reading a second."""

import asyncio
import contextlib
import threading

import pytest

from leasehold_broker.adapters import prometheus_metrics
from leasehold_broker.adapters.prometheus_metrics import CONNECTIONS_MAX, REQUEST_BYTES_MAX, PrometheusMetrics, Sample

GET = b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


class Numbers:
    """What is shown, and how often it was read."""

    def __init__(self) -> None:
        """Never read."""
        self.read = 0

    def samples(self):
        """Two numbers."""
        self.read += 1
        return [
            Sample("things", "Things.", 7),
            Sample("refusals", "By reason.", 2, counter=True, label=("reason", "X")),
        ]


@pytest.fixture
async def numbers():
    """The numbers."""
    return Numbers()


@pytest.fixture
async def metrics(numbers):
    """A running endpoint."""
    endpoint = PrometheusMetrics("127.0.0.1", 0, numbers.samples)
    await endpoint.start()
    yield endpoint
    await endpoint.close()


async def ask(metrics, data=GET):
    """What comes back until the connection closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", metrics.port)
    writer.write(data)
    async with asyncio.timeout(240):
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


async def test_a_scrape_gets_the_numbers(metrics):
    """In Prometheus' text form, with names, kinds and labels; the connection closes."""
    answer = await ask(metrics)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"# TYPE leasehold_things gauge\nleasehold_things 7.0\n" in answer
    assert b'leasehold_refusals_total{reason="X"} 2.0\n' in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics/../x HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ],
)
async def test_anything_else_is_not_found(metrics, numbers, data):
    """Nothing but GET /metrics is answered with numbers, nor makes any be read."""
    assert (await ask(metrics, data)).startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert numbers.read == 0


async def test_requests_in_a_row_are_one_answer(metrics):
    """What follows the first request on a connection is not read."""
    assert (await ask(metrics, GET * 50)).count(b"HTTP/1.1 ") == 1


async def test_numbers_are_read_once_a_second(metrics, numbers, monkeypatch):
    """However often it is asked; then anew."""
    monkeypatch.setattr(prometheus_metrics, "FRESH_SECONDS", 1000.0)
    for _ in range(20):
        await ask(metrics)
    assert numbers.read == 1
    metrics._fresh_until = 0.0
    await ask(metrics)
    assert numbers.read == 2


async def test_a_request_without_end_is_dropped(metrics, numbers):
    """A head beyond its bound ends the connection without an answer."""
    assert await ask(metrics, b"GET /metrics HTTP/1.1\r\nx: " + b"a" * 2 * REQUEST_BYTES_MAX) == b""
    assert numbers.read == 0


async def test_whoever_says_nothing_is_dropped(metrics, monkeypatch):
    """A connection has a short time for its request."""
    monkeypatch.setattr(prometheus_metrics, "REQUEST_SECONDS_MAX", 0.05)
    assert await ask(metrics, b"GET /met") == b""


async def test_many_connections_cost_no_thread_and_are_bounded(metrics):
    """Hundreds of silent connections: as many as allowed are held, the rest is dropped, and a place comes back."""
    threads = set(threading.enumerate())
    opened = [await asyncio.open_connection("127.0.0.1", metrics.port) for _ in range(300)]
    async with asyncio.timeout(240):
        while sum(reader.at_eof() for reader, _ in opened) < 300 - CONNECTIONS_MAX:
            for reader, _ in opened:
                with contextlib.suppress(ConnectionError, TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.001)
    assert len(metrics.scrapes) == CONNECTIONS_MAX
    assert set(threading.enumerate()) <= threads  # those of earlier tests may end meanwhile
    for _, writer in opened:
        writer.close()
    async with asyncio.timeout(240):
        while not (await ask(metrics)).startswith(b"HTTP/1.1 200"):
            continue
