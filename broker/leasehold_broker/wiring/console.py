"""Puts the collector's web door together: sessions, the identity provider, the methods behind the pages, bounds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from leasehold_broker.adapters.http_guard import HttpGuard
from leasehold_broker.adapters.jwt_identities import JwtIdentities
from leasehold_broker.adapters.openid_sign_in import OpenIdSignIn
from leasehold_broker.collector.access import Operators
from leasehold_broker.config.console import ConsoleAt, OidcAt, SamlAt
from leasehold_broker.domain.collector_rules import Role, RoleRule
from leasehold_broker.domain.console_sessions import ConsoleSessions
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.proof import Scheme, UnverifiedProof
from leasehold_broker.flows.console_sign_in import ConsoleSignIn
from leasehold_broker.flows.saml_sign_in import SamlSignIn
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.rpc.caller import Shown
from leasehold_broker.rpc.desk import Desk
from leasehold_broker.wiring.http_listening import listening
from leasehold_broker.wiring.signals_door import DoorEyes
from leasehold_broker.wiring.supervision import Supervisor

SECRET_BYTES_MAX = 4096
KEEPALIVE_SECONDS = 15.0
STOP_SECONDS = 2.0
SIGN_IN = "console GET /signed-in"


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """What the console shares with the rest of the collector."""

    roles: tuple[RoleRule, ...]
    desk: Desk
    eyes: DoorEyes
    events: EventLog
    clock: Clock
    entropy: Entropy


@contextlib.asynccontextmanager
async def console_door(at: ConsoleAt | None, parts: ConsoleParts, tasks: Supervisor) -> AsyncIterator[int]:
    """Serve while the context lasts; gives the port, 0 for no console.

    Raises:
        RuntimeError: the libraries of the extra "console" are not installed, or the certificates cannot be used.
        OSError: the address cannot be bound.
    """
    if at is None:
        yield 0
        return
    try:
        from aiohttp import web  # noqa: PLC0415 - an extra

        from leasehold_broker.collector.http_surround import HttpSurround  # noqa: PLC0415 - as above
        from leasehold_broker.console.door import Behind, ConsoleDoor  # noqa: PLC0415 - as above
    except ModuleNotFoundError as missing:
        message = f"[console] needs {missing.name}: pip install 'leasehold-broker[console]'"
        raise RuntimeError(message) from None
    guard = HttpGuard(parts.eyes.peers)
    async with contextlib.AsyncExitStack() as stack:
        operators, provider = await _openid(at.oidc, parts, stack)

        async def authenticate(token: str, peer: Peer) -> Identity:
            shown = Shown(peer, token, UnverifiedProof(Scheme.BEARER, SIGN_IN))
            return await operators.authenticate(shown, parts.clock.now())

        sign_in = ConsoleSignIn(
            provider, authenticate, ConsoleSessions(at.sessions), parts.events, parts.clock, parts.entropy
        )
        await stack.enter_async_context(tasks.keeping("console sessions", sign_in.run))
        behind = Behind(
            sign_in,
            provider is not None,
            None if at.saml is None else _saml(at.saml, operators, sign_in, parts),
            parts.desk,
            operators.roles_of,
            lambda transport: _peer(parts.eyes, transport),
            parts.eyes.records,
            guard.streaming,
            parts.clock,
            parts.entropy,
        )
        surround = HttpSurround(guard, parts.eyes.sprung_by, parts.eyes.records).middleware()
        runner = web.AppRunner(
            ConsoleDoor(at.origin, behind, [surround]).app,
            access_log=None,
            keepalive_timeout=KEEPALIVE_SECONDS,
            shutdown_timeout=STOP_SECONDS,
        )
        await runner.setup()
        stack.callback(guard.close)
        stack.push_async_callback(runner.cleanup)
        if runner.server is None:
            raise RuntimeError("the HTTP server is not made")
        yield await stack.enter_async_context(
            listening("console", at.listen, guard.around(runner.server), parts.eyes.peers, tasks)
        )


async def _openid(
    at: OidcAt | None, parts: ConsoleParts, stack: contextlib.AsyncExitStack
) -> tuple[Operators, OpenIdSignIn | None]:
    """Who is who by the provider's tokens, and the provider; nobody, and none, where none is named."""
    if at is None:
        return Operators(None, parts.roles, {}), None
    identities = JwtIdentities([at.issuer], parts.clock)
    await identities.start()
    stack.push_async_callback(identities.aclose)
    secret = _secret(at.client_secret)
    provider = OpenIdSignIn(at.issuer.issuer, at.issuer.audience, at.scopes, secret, at.redirect_uri)
    stack.callback(provider.close)
    return Operators(identities, parts.roles, {}), provider


def _saml(at: SamlAt, operators: Operators, sign_in: ConsoleSignIn, parts: ConsoleParts) -> SamlSignIn:
    try:
        from leasehold_broker.adapters.saml_responses import SamlResponses  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as missing:
        message = f"[console.saml] needs {missing.name}: pip install 'leasehold-broker[saml]'"
        raise RuntimeError(message) from None
    provider = SamlResponses(at.rule, at.sso_url, at.certificates.read_bytes)
    return SamlSignIn(provider, at.rule, partial(any_role, operators), sign_in, parts.clock, parts.entropy)


def any_role(operators: Operators, identity: Identity) -> None:
    """Go on for whoever has a role.

    Raises:
        Refusal: OPERATOR_NOT_ALLOWED.
    """
    operators.require(identity, *Role)


def _peer(eyes: DoorEyes, transport: asyncio.BaseTransport | None) -> Peer:
    if transport is None:
        raise ConnectionResetError("the browser has gone")
    return eyes.peers.peer_of(transport.get_extra_info("socket"))


def _secret(path: Path | None) -> Callable[[], str]:
    """Reads the client's secret when it is needed; "" for a client without."""

    def read() -> str:
        if path is None:
            return ""
        text = path.read_bytes()[:SECRET_BYTES_MAX].decode("ascii", "replace").strip()
        if not text:
            raise OSError("the file of the client's secret is empty")
        return text

    return read
