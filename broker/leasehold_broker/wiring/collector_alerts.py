"""Who a collector tells of trouble: from its settings to what is kept telling."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import assert_never

import structlog

from leasehold_broker.adapters.prometheus_metrics import Sample
from leasehold_broker.adapters.sinks import HttpTarget, PagerDutyEndpoint, SlackEndpoint, WebhookEndpoint
from leasehold_broker.config.alerts import AlertKind, AlertsAt
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.flows.feed_sinks import FeedSink, SinkState
from leasehold_broker.flows.send_alerts import AlertRule, EndpointState, SendAlerts
from leasehold_broker.flows.watch_collector import Watched
from leasehold_broker.ports.alert_endpoint import AlertEndpoint
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.wire.event_body import decode_event
from leasehold_broker.wiring.collector_store import OpenStore
from leasehold_broker.wiring.supervision import Supervisor

LAST_WORDS_SECONDS = 5.0
LOOK_SECONDS = 0.02
log = structlog.get_logger("leasehold.alerts")


@contextlib.asynccontextmanager
async def sent_alerts(
    endpoints: Sequence[AlertsAt], store: OpenStore, source: str, tasks: Supervisor
) -> AsyncIterator[tuple[SendAlerts, ...]]:
    """Tell them while the context lasts. None of them needs to be there: one that is away is waited for.

    Raises:
        OSError: roots of a target cannot be read.
        Refusal: STORE_UNAVAILABLE.
    """
    senders: list[SendAlerts] = []
    async with contextlib.AsyncExitStack() as stack:
        for at in endpoints:
            endpoint = _endpoint(at, source)
            stack.push_async_callback(endpoint.close)
            rule = AlertRule(at.name, at.severity_min, at.types, at.window_seconds)
            sender = SendAlerts(rule, endpoint, store.log, store.log, decode_event)
            await sender.start()
            senders.append(sender)
            await stack.enter_async_context(
                tasks.keeping(f"alerts {at.name}", store.led_from_cursor(f"alerts {at.name}", sender))
            )
            log.info("alerting", endpoint=at.name, kind=at.kind, severity_min=at.severity_min)
        yield tuple(senders)


async def last_words(why: str, events: EventLog, clock: Clock, senders: Sequence[SendAlerts]) -> None:
    """Say why this collector gives up, if it does ("": no), and give its endpoints a moment: it may not start again."""
    if not why:
        return
    event = Event(EventType.COLLECTOR_FAILED, clock.now().wall_ms, Outcome.FAILED, details={"message": why})
    with contextlib.suppress(Refusal, TimeoutError):  # a disk that failed takes no event; the log says it all the same
        async with asyncio.timeout(LAST_WORDS_SECONDS):
            await events.record(event)
            while any(one.lag_records() for one in senders):  # noqa: ASYNC110 - once, at the end
                await asyncio.sleep(LOOK_SECONDS)


def alert_samples(senders: Sequence[SendAlerts]) -> Iterator[Sample]:
    """Metrics of all endpoints; the label comes from the configuration."""
    for sender in senders:
        label = ("endpoint", sender.rule.name)
        state = sender.state
        yield Sample("alerts_sent", "Alerts that the endpoint took.", state.sent, counter=True, label=label)
        yield Sample(
            "alerts_held_back", "Alerts told already in the window.", state.held_back, counter=True, label=label
        )
        yield Sample("alerts_rejected", "Alerts the endpoint never takes.", state.rejected, counter=True, label=label)
        yield Sample("alerts_failures", "Attempts that were not taken.", state.failures, counter=True, label=label)
        yield Sample("alerts_failing", "1 while the last was not taken.", bool(state.failing), label=label)


def watched(feeds: Sequence[FeedSink], senders: Sequence[SendAlerts]) -> list[Watched]:
    """What may be stuck: every sink, and every endpoint for alerts (told by the others)."""
    return [
        *(Watched(feed.rule.name, partial(_why, feed.state)) for feed in feeds),
        *(Watched(f"alerts {one.rule.name}", partial(_why, one.state)) for one in senders),
    ]


def _why(state: SinkState | EndpointState) -> str:
    return state.failing


def _endpoint(at: AlertsAt, source: str) -> AlertEndpoint:
    target = HttpTarget(at.url, at.bearer_file, at.ca_file, at.timeout_seconds, at.url_file)
    match at.kind:
        case AlertKind.SLACK:
            return SlackEndpoint(at.name, target, source)
        case AlertKind.PAGERDUTY:
            if at.key_file is None:
                raise RuntimeError("the configuration lets no such endpoint through")
            return PagerDutyEndpoint(at.name, target, source, at.key_file)
        case AlertKind.WEBHOOK:
            return WebhookEndpoint(at.name, target, source, at.key_file, lambda: int(time.time()))
        case _:
            assert_never(at.kind)
