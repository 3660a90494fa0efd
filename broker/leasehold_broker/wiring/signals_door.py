"""Puts the collector's HTTP door together: routes of receiver and transmitter, bounds, TLS that follows its files."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from leasehold_broker.adapters.http_guard import HttpGuard
from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.adapters.security_event_tokens import SecurityEventTokens
from leasehold_broker.adapters.signal_key import SignalKey
from leasehold_broker.config.doors import Listen
from leasehold_broker.config.signals import SignalsAt
from leasehold_broker.domain.honeytokens import Honeytoken
from leasehold_broker.flows.collector_traps import CollectorTraps
from leasehold_broker.flows.receive_signals import ReceiveSignals
from leasehold_broker.flows.send_signals import OfferSignals
from leasehold_broker.ports.clock import Clock
from leasehold_broker.wiring.collector_store import OpenStore
from leasehold_broker.wiring.http_listening import listening
from leasehold_broker.wiring.supervision import Supervisor

TOKEN_BYTES_MAX = 16 * 1024
KEEPALIVE_SECONDS = 15.0
STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class DoorEyes:
    """Who is at the door: the kernel's word, the honeytokens that are laid, and where their use is recorded."""

    peers: KernelPeers
    sprung_by: Callable[[list[str]], Honeytoken | None]
    records: CollectorTraps


@dataclass(frozen=True, slots=True)
class Behind:
    """What stands behind the door. `key` is None where we send nothing."""

    store: OpenStore
    tokens: SecurityEventTokens
    take: ReceiveSignals
    key: SignalKey | None
    clock: Clock
    offers: Mapping[str, OfferSignals]


@contextlib.asynccontextmanager
async def signals_door(
    at: SignalsAt, listen: Listen, behind: Behind, eyes: DoorEyes, tasks: Supervisor
) -> AsyncIterator[int]:
    """Listen while the context lasts; gives the port.

    Raises:
        RuntimeError: the library of the extra "signals" is not installed, or the certificates cannot be used.
        OSError: the address cannot be bound.
    """
    try:
        from aiohttp import web  # noqa: PLC0415 - an extra

        from leasehold_broker.collector.http_surround import HttpSurround  # noqa: PLC0415 - as above
        from leasehold_broker.collector.signals_door import SignalsDoor  # noqa: PLC0415 - as above
        from leasehold_broker.collector.transmitter_door import TransmitterDoor  # noqa: PLC0415 - as above
    except ModuleNotFoundError as missing:
        message = f"[signals] needs {missing.name}: pip install 'leasehold-broker[signals]'"
        raise RuntimeError(message) from None
    guard = HttpGuard(eyes.peers)
    pushing = {one.rule.name: one for one in at.receive if one.poll is None}
    door = SignalsDoor(
        {name: one.rule for name, one in pushing.items()},
        behind.tokens.verify,
        _bearers({name: one.bearer_file for name, one in pushing.items()}),
        behind.take,
        behind.clock,
        HttpSurround(guard, eyes.sprung_by, eyes.records),
    )
    if behind.key is not None:
        TransmitterDoor(
            {one.stream.name: one.stream for one in at.send},
            {one.stream.name: one.push_url for one in at.send},
            behind.offers,
            _bearers({one.stream.name: one.bearer_file for one in at.send}),
            behind.key.jwks,
            behind.store.log,
            behind.clock,
        ).add_to(door.app, at.issuer)
    runner = web.AppRunner(
        door.app, access_log=None, keepalive_timeout=KEEPALIVE_SECONDS, shutdown_timeout=STOP_SECONDS
    )
    await runner.setup()
    try:
        if runner.server is None:
            raise RuntimeError("the HTTP server is not made")
        async with listening("signals", listen, guard.around(runner.server), eyes.peers, tasks) as port:
            yield port
    finally:
        await runner.cleanup()
        guard.close()


def _bearers(files: Mapping[str, Path | None]) -> Callable[[str], str | None]:
    """The token in each file, read when it is asked for."""

    def bearer(name: str) -> str | None:
        path = files[name]
        if path is None:
            return None
        token = path.read_bytes()[:TOKEN_BYTES_MAX].decode("ascii", "replace").strip()
        if not token:
            raise OSError("the file of the bearer token is empty")
        return token

    return bearer
