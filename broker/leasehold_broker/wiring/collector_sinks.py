"""The sinks of a collector: from its settings to what feeds them."""

import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import assert_never

import structlog

from leasehold_broker.adapters.prometheus_metrics import Sample
from leasehold_broker.adapters.sinks import (
    FileSink,
    Format,
    HttpTarget,
    OtlpSink,
    SyslogSink,
    SyslogTarget,
    Transport,
    WebhookSink,
)
from leasehold_broker.config.sinks import SinkAt, SinkKind
from leasehold_broker.flows.feed_sinks import FeedSink, SinkRule
from leasehold_broker.ports.event_sink import EventSink
from leasehold_broker.wiring.collector_store import OpenStore
from leasehold_broker.wiring.supervision import Supervisor

FOLLOW_SECONDS = 1.0
log = structlog.get_logger("leasehold.sinks")


@contextlib.asynccontextmanager
async def fed_sinks(
    sinks: Sequence[SinkAt], store: OpenStore, service: str, tasks: Supervisor
) -> AsyncIterator[tuple[FeedSink, ...]]:
    """Feed them while the context lasts. None of them needs to be there: a sink that is away is waited for.

    Raises:
        OSError: roots of a target cannot be read.
        Refusal: STORE_UNAVAILABLE.
    """
    feeds: list[FeedSink] = []
    async with contextlib.AsyncExitStack() as stack:
        for at in sinks:
            sink = _sink(at, service)
            stack.push_async_callback(sink.close)
            rule = SinkRule(at.name, at.required, at.lag_records_max, at.types, at.from_start)
            feed = FeedSink(rule, sink, store.log, store.log, _told)
            await feed.start()
            feeds.append(feed)
            work = store.led_from_cursor(f"sink {at.name}", feed)
            await stack.enter_async_context(tasks.keeping(f"sink {at.name}", work))
            if store.shared:
                follow = partial(feed.follow, FOLLOW_SECONDS)
                await stack.enter_async_context(tasks.keeping(f"sink {at.name}, elsewhere", follow))
            log.info("feeding", sink=at.name, kind=at.kind, required=at.required, position=feed.state.position)
        yield tuple(feeds)


def sink_samples(feeds: Sequence[FeedSink]) -> Iterator[Sample]:
    """Metrics of all sinks; the label comes from the configuration."""
    for feed in feeds:
        label = ("sink", feed.rule.name)
        state = feed.state
        yield Sample("sink_lag_records", "Events that the sink does not have yet.", feed.lag_records(), label=label)
        yield Sample("sink_delivered", "Events that the sink took.", state.delivered, counter=True, label=label)
        yield Sample("sink_failures", "Batches that were not taken.", state.failures, counter=True, label=label)
        yield Sample(
            "sink_hash_only", "Events gone before the sink had them.", state.hash_only, counter=True, label=label
        )
        yield Sample("sink_failing", "1 while the last batch was not taken.", bool(state.failing), label=label)


def _sink(at: SinkAt, service: str) -> EventSink:
    form = Format(at.format.value)
    target = HttpTarget(at.url, at.bearer_file, at.ca_file, at.timeout_seconds)
    match at.kind:
        case SinkKind.FILE:
            return FileSink(at.name, at.path, form)
        case SinkKind.WEBHOOK:
            return WebhookSink(at.name, target, form, at.key_file, lambda: int(time.time()))
        case SinkKind.OTLP:
            return OtlpSink(at.name, target, service, partial(_rejected, at.name))
        case SinkKind.SYSLOG:
            where = SyslogTarget(Transport(at.transport.value), at.host, at.port, at.ca_file, at.timeout_seconds)
            return SyslogSink(where, form, socket.gethostname())
        case _:
            assert_never(at.kind)


def _told(sink: str, why: str) -> None:
    if why:
        log.warning("a sink takes no events", sink=sink, why=why)
    else:
        log.info("a sink takes events again", sink=sink)


def _rejected(sink: str, count: int, why: str) -> None:
    log.warning("a sink rejected events for good", sink=sink, events=count, why=why)
