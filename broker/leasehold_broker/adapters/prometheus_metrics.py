"""Metrics in Prometheus' text form on a loopback port. Owns the endpoint; counts nothing itself: it reads when asked.

Labels come from closed sets (reasons, states), never from names of leases or agents.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

CONNECTIONS_MAX = 16
REQUEST_BYTES_MAX = 8 * 1024
REQUEST_SECONDS_MAX = 5.0
FRESH_SECONDS = 1.0
_REQUEST = re.compile(rb"GET /metrics(?:\?[ -~]*)? HTTP/1\.[01]\r\n")


@dataclass(frozen=True, slots=True)
class Sample:
    """One number.

    Args:
        name: without the "leasehold_" prefix; counters without "_total".
        help: one line.
        value: the number now.
        counter: True when it only grows.
        label: name and value of the one label, or None.
    """

    name: str
    help: str
    value: float
    counter: bool = False
    label: tuple[str, str] | None = None


class _Reader:
    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for sample in self._read():
            family = families.get(sample.name)
            if family is None:
                kind = CounterMetricFamily if sample.counter else GaugeMetricFamily
                labels = [sample.label[0]] if sample.label else []
                family = families[sample.name] = kind(f"leasehold_{sample.name}", sample.help, labels=labels)
            family.add_metric([sample.label[1]] if sample.label else [], sample.value)
        return families.values()


class PrometheusMetrics:
    """The endpoint: GET /metrics and nothing else, one request a connection, on the running loop.

    Anybody on this machine can reach it. So it takes few connections, waits a short time for a short request, and reads
    the numbers once a second at most, whoever asks how often.
    """

    def __init__(self, host: str, port: int, read: Callable[[], Iterable[Sample]]) -> None:
        """Prepare.

        Args:
            host: a loopback address.
            port: 0 for any.
            read: gives the numbers; called on the loop.
        """
        self._address = host, port
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Reader(read))
        self._text = b""
        self._fresh_until = 0.0
        self._server: asyncio.Server | None = None
        self.scrapes: set[asyncio.BaseTransport] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is taken.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Scrape(self), *self._address, backlog=CONNECTIONS_MAX)

    @property
    def port(self) -> int:
        """Where it listens; 0 before it does."""
        if self._server is None:
            return 0
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening, and drop whoever is connected."""
        if self._server is not None:
            self._server.close()
            for transport in list(self.scrapes):
                cast("asyncio.Transport", transport).abort()

    def text(self) -> bytes:
        """The numbers, at most `FRESH_SECONDS` old."""
        now = asyncio.get_running_loop().time()
        if now >= self._fresh_until:
            self._text = generate_latest(self._registry)
            self._fresh_until = now + FRESH_SECONDS
        return self._text


class _Scrape(asyncio.Protocol):
    """One connection, one request."""

    def __init__(self, owner: PrometheusMetrics) -> None:
        self._owner = owner
        self._head = b""
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, unless there are enough."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._owner.scrapes) >= CONNECTIONS_MAX:
            self._transport.abort()
            return
        self._owner.scrapes.add(transport)
        self._deadline = asyncio.get_running_loop().call_later(REQUEST_SECONDS_MAX, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Answer when the head is there; whatever follows it is not read."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            transport.write(self._answer())
            transport.close()
        elif len(self._head) > REQUEST_BYTES_MAX:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """Forget it."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._transport is not None:
            self._owner.scrapes.discard(self._transport)

    def _answer(self) -> bytes:
        found = _REQUEST.match(self._head) is not None
        status, body = (b"200 OK", self._owner.text()) if found else (b"404 Not Found", b"GET /metrics\n")
        return b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
            status,
            CONTENT_TYPE_LATEST.encode(),
            len(body),
            body,
        )
