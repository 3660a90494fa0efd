"""How a collector hears security events of other systems, and tells them its own: by its HTTP door, or by asking."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import structlog

from leasehold_broker.adapters.security_event_tokens import SecurityEventTokens, Transmitter
from leasehold_broker.adapters.signal_key import SignalKey
from leasehold_broker.adapters.signal_poll import PolledSource
from leasehold_broker.adapters.signal_push import PushedReceiver
from leasehold_broker.adapters.sinks import HttpTarget
from leasehold_broker.config.signals import ReceiveAt, SendAt, SignalsAt
from leasehold_broker.flows.poll_signals import PollSignals, PollState
from leasehold_broker.flows.receive_signals import ReceiveSignals
from leasehold_broker.flows.send_signals import OfferSignals, PushSignals, StreamState
from leasehold_broker.flows.watch_collector import Watched
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.revocation_issuer import RevocationIssuer
from leasehold_broker.wire.event_body import decode_event
from leasehold_broker.wiring.collector_store import OpenStore
from leasehold_broker.wiring.signals_door import Behind, DoorEyes, signals_door
from leasehold_broker.wiring.supervision import Supervisor

log = structlog.get_logger("leasehold.signals")


@dataclass(slots=True)
class OpenSignals:
    """What runs: the door's port (0: none), what may be stuck, and the streams that are polled."""

    port: int = 0
    watched: list[Watched] = field(default_factory=list)
    offers: dict[str, OfferSignals] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def signals(
    at: SignalsAt,
    store: OpenStore,
    issuer: RevocationIssuer,
    clock: Clock,
    tasks: Supervisor,
    eyes: DoorEyes,
) -> AsyncIterator[OpenSignals]:
    """Hear and tell while the context lasts.

    Raises:
        RuntimeError: the library of the extra "signals" is not installed.
        Refusal: STORE_UNAVAILABLE.
        OSError, ValueError: an address, a source of keys, our key or a certificate cannot be used.
    """
    open_ = OpenSignals()
    async with contextlib.AsyncExitStack() as stack:
        tokens = SecurityEventTokens(
            {one.rule.name: Transmitter(one.rule, one.keys) for one in at.receive}, clock, _not_fetched
        )
        await tokens.start()
        stack.push_async_callback(tokens.aclose)
        take = ReceiveSignals(issuer, store.log, clock)
        for one in at.receive:
            await stack.enter_async_context(_fetched(one, store, tokens, take, clock, tasks, open_))
        key = SignalKey(at.key_file, shared=store.shared) if at.send else None
        for one_sent in at.send:
            if key is not None:
                await stack.enter_async_context(_told(one_sent, store, key, tasks, open_))
        if at.listen is not None:
            open_.port = await stack.enter_async_context(
                signals_door(at, at.listen, Behind(store, tokens, take, key, clock, open_.offers), eyes, tasks)
            )
        if at.receive or at.send:
            names = {"receive": [one.rule.name for one in at.receive], "send": [one.stream.name for one in at.send]}
            log.info("security events", port=open_.port, **names)
        yield open_


@contextlib.asynccontextmanager
async def _fetched(
    one: ReceiveAt,
    store: OpenStore,
    tokens: SecurityEventTokens,
    take: ReceiveSignals,
    clock: Clock,
    tasks: Supervisor,
    open_: OpenSignals,
) -> AsyncIterator[None]:
    """Ask a transmitter that does not push; nothing for one that does."""
    if one.poll is None:
        yield
        return
    name = f"signals from {one.rule.name}"
    source = PolledSource(one.rule.name, HttpTarget(one.poll.url, one.poll.bearer_file, one.poll.ca_file))
    poll = PollSignals(one.rule, source, tokens.verify, take, clock, one.poll.seconds)
    open_.watched.append(Watched(name, partial(_why, poll.state)))
    try:
        async with tasks.keeping(name, store.led(name, poll.run)):
            yield
    finally:
        await source.close()


@contextlib.asynccontextmanager
async def _told(
    one: SendAt, store: OpenStore, key: SignalKey, tasks: Supervisor, open_: OpenSignals
) -> AsyncIterator[None]:
    """Push to a receiver; one that polls is only made ready."""
    if not one.push_url:
        offer = OfferSignals(one.stream, store.log, store.log, decode_event, key)
        await offer.start()
        open_.offers[one.stream.name] = offer
        yield
        return
    name = f"signals to {one.stream.name}"
    receiver = PushedReceiver(one.stream.name, HttpTarget(one.push_url, one.push_bearer_file, one.ca_file))
    push = PushSignals(one.stream, store.log, store.log, decode_event, key).to(receiver)
    await push.start()
    open_.watched.append(Watched(name, partial(_why, push.state)))
    try:
        async with tasks.keeping(name, store.led_from_cursor(name, push)):
            yield
    finally:
        await receiver.close()


def _why(state: PollState | StreamState) -> str:
    return state.failing


def _not_fetched(rule: str, why: str) -> None:
    log.warning("keys of a transmitter cannot be fetched", rule=rule, why=why)
