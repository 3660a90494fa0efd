"""Metrics in Prometheus' text form on a loopback port. Owns the endpoint; counts nothing itself: it reads when asked.

Labels come from closed sets (reasons, states), never from names of leases or agents.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


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
    """The endpoint; serves in a thread of its own."""

    def __init__(self, host: str, port: int, read: Callable[[], Iterable[Sample]]) -> None:
        """Listen.

        Args:
            host: a loopback address.
            port: 0 for any.
            read: called at each scrape, from another thread: must only read.

        Raises:
            OSError: the address is taken.
        """
        registry = CollectorRegistry()
        registry.register(_Reader(read))
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
