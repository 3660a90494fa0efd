"""Security event tokens, verified: the same strict gate and keys as for workload tokens. Makes `SecurityEvent`s."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from leasehold_broker.adapters.jwks_cache import JwksCache
from leasehold_broker.adapters.jwt_gate import read_token
from leasehold_broker.domain.issuer import IssuerRule
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.security_events import (
    SecurityEvent,
    SetError,
    SetRefusedError,
    SignalRule,
    read_security_event,
)
from leasehold_broker.domain.time import Instant
from leasehold_broker.ports.clock import Clock

TOKEN_TYPE = "secevent+jwt"  # noqa: S105 - the name of a type: RFC 8417, section 2.3


@dataclass(frozen=True, slots=True)
class Transmitter:
    """One that is listened to: how its events are taken, and its keys."""

    rule: SignalRule
    keys: IssuerRule


class SecurityEventTokens:
    """Verifies tokens of transmitters, by the name of their rule."""

    def __init__(
        self, transmitters: Mapping[str, Transmitter], clock: Clock, on_failure: Callable[[str, str], None]
    ) -> None:
        """Prepare; `start` fetches.

        Raises:
            ValueError, OSError: a source of keys is unusable.
        """
        self._transmitters = transmitters
        self._caches = {name: JwksCache(one.keys, clock, None, on_failure) for name, one in transmitters.items()}

    async def start(self) -> None:
        """Fetch all keys once, and keep them fresh."""
        await asyncio.gather(*(cache.start() for cache in self._caches.values()))

    async def aclose(self) -> None:
        """Stop fetching."""
        await asyncio.gather(*(cache.aclose() for cache in self._caches.values()))

    async def verify(self, name: str, unverified_token: str, now: Instant) -> SecurityEvent:
        """The event.

        Raises:
            SetRefusedError: not taken; the description says why, and nothing of the token.
            Refusal: KEYS_OF_ISSUER_UNAVAILABLE: to be sent again later.
        """
        one = self._transmitters[name]
        try:
            token = read_token(unverified_token)
        except Refusal as refusal:
            raise SetRefusedError(SetError.INVALID_REQUEST, refusal.detail or "not a token") from None
        if token.token_type != TOKEN_TYPE:
            raise SetRefusedError(SetError.INVALID_REQUEST, f"'typ' must be {TOKEN_TYPE}")
        if token.claims.get("iss") != one.rule.issuer:
            raise SetRefusedError(SetError.INVALID_ISSUER, "'iss' is not the issuer that this address is for")
        if token.algorithm not in one.keys.algorithms:
            raise SetRefusedError(SetError.INVALID_KEY, "'alg' is not allowed for this issuer")
        try:
            keys = await self._caches[name].keys_for(token.key_id, token.algorithm)
        except Refusal as refusal:
            if refusal.reason is Reason.JWT_UNKNOWN_KEY:
                raise SetRefusedError(SetError.INVALID_KEY, "no key of the issuer has this 'kid'") from None
            raise
        if not any(key.verifies(token.algorithm, token.signed, token.signature) for key in keys):
            raise SetRefusedError(SetError.INVALID_KEY, "the signature is not the issuer's")
        return read_security_event(token.claims, one.rule, now)
