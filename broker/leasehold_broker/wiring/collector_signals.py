"""How a collector takes the security events of other systems: pushed to its HTTP door, or fetched."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

import structlog

from leasehold_broker.adapters.security_event_tokens import SecurityEventTokens, Transmitter
from leasehold_broker.adapters.signal_poll import PolledSource
from leasehold_broker.adapters.sinks import HttpTarget
from leasehold_broker.config.doors import Listen
from leasehold_broker.config.signals import ReceiveAt, SignalsAt
from leasehold_broker.flows.poll_signals import PollSignals
from leasehold_broker.flows.receive_signals import ReceiveSignals
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.revocation_issuer import RevocationIssuer
from leasehold_broker.wiring.collector_store import OpenStore
from leasehold_broker.wiring.supervision import Supervisor

TOKEN_BYTES_MAX = 16 * 1024
KEEPALIVE_SECONDS = 15.0
STOP_SECONDS = 2.0
log = structlog.get_logger("leasehold.signals")


@contextlib.asynccontextmanager
async def taken_signals(
    at: SignalsAt, store: OpenStore, issuer: RevocationIssuer, clock: Clock, tasks: Supervisor
) -> AsyncIterator[int]:
    """Take them while the context lasts; gives the door's port, 0 for none.

    Raises:
        RuntimeError: the library of the extra "signals" is not installed.
        OSError, ValueError: an address, a key source or a certificate cannot be used.
    """
    if not at.receive:
        yield 0
        return
    tokens = SecurityEventTokens(
        {one.rule.name: Transmitter(one.rule, one.keys) for one in at.receive}, clock, _not_fetched
    )
    take = ReceiveSignals(issuer, store.log, clock)
    async with contextlib.AsyncExitStack() as stack:
        await tokens.start()
        stack.push_async_callback(tokens.aclose)
        for one in at.receive:
            if one.poll is not None:
                source = PolledSource(one.rule.name, HttpTarget(one.poll.url, one.poll.bearer_file, one.poll.ca_file))
                stack.push_async_callback(source.close)
                poll = PollSignals(one.rule, source, tokens.verify, take, clock, one.poll.seconds)
                work = store.led(f"signals {one.rule.name}", poll.run)
                await stack.enter_async_context(tasks.keeping(f"signals {one.rule.name}", work))
        port = 0
        if at.listen is not None:
            port = await stack.enter_async_context(_door(at.listen, at.receive, tokens, take, clock))
        log.info("taking security events", transmitters=[one.rule.name for one in at.receive], port=port)
        yield port


@contextlib.asynccontextmanager
async def _door(
    listen: Listen,
    receive: tuple[ReceiveAt, ...],
    tokens: SecurityEventTokens,
    take: ReceiveSignals,
    clock: Clock,
) -> AsyncIterator[int]:
    try:
        from aiohttp import web  # noqa: PLC0415 - an extra

        from leasehold_broker.collector.signals_door import SignalsDoor  # noqa: PLC0415 - as above
    except ModuleNotFoundError as missing:
        message = f"[signals] needs {missing.name}: pip install 'leasehold-broker[signals]'"
        raise RuntimeError(message) from None
    pushing = {one.rule.name: one for one in receive if one.poll is None}
    door = SignalsDoor(
        {name: one.rule for name, one in pushing.items()}, tokens.verify, _bearer_of(pushing), take, clock
    )
    runner = web.AppRunner(
        door.app, access_log=None, keepalive_timeout=KEEPALIVE_SECONDS, shutdown_timeout=STOP_SECONDS
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, listen.host, listen.port, ssl_context=_tls(listen))
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _bearer_of(pushing: dict[str, ReceiveAt]) -> Callable[[str], str | None]:
    def bearer(name: str) -> str | None:
        path = pushing[name].bearer_file
        if path is None:
            return None
        token = path.read_bytes()[:TOKEN_BYTES_MAX].decode("ascii", "replace").strip()
        if not token:
            raise OSError("the file of the bearer token is empty")
        return token

    return bearer


def _tls(listen: Listen) -> ssl.SSLContext | None:
    if listen.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(listen.tls.certificate, listen.tls.private_key)
    return context


def _not_fetched(rule: str, why: str) -> None:
    log.warning("keys of a transmitter cannot be fetched", rule=rule, why=why)
