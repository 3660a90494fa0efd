"""Keys without a secret: a workload token is exchanged for a short-lived one when a call needs it.

Owns the cache of minted tokens: one for each rule, its version, the models it was narrowed to, and the agent whose own
token was exchanged, where the rule says so; renewed early, at a
moment that differs from sidecar to sidecar; one exchange at a time for each. A renewal that fails changes nothing while
the token lives. Refuses to use a token in its last moments: the call could outlive it on the way.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.keys import KeyKind, KeyRecord, KeyState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import NANOS
from leasehold_broker.flows.agent_tokens import AgentTokens, holder_name
from leasehold_broker.flows.pauses import PAUSE_SECONDS, Pauses
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.token_exchange import (
    Assertions,
    Exchange,
    ExchangeFault,
    ExchangeState,
    Minted,
    MintRequest,
    TokenEndpoints,
)

TOKENS_MAX = 1_000
RENEW_AT, RENEW_JITTER = 0.6, 0.2
"""Renewed after 60 to 80 % of a token's life."""
LAST_SECONDS, LAST_SHARE = 30.0, 0.1
"""Not used in its last 30 seconds, or in the last tenth of a short life."""


@dataclass(frozen=True, slots=True)
class FederatedKey:
    """One rule.

    Args:
        name, provider, environment: as of any key.
        version: of the rule, raised by whoever changes it at the provider: tokens of another version are never used.
        exchange: how.
        assertion_file: where the workload token lies; "": the agent's own is exchanged.
    """

    name: str
    provider: str
    environment: str
    version: int
    exchange: Exchange
    assertion_file: str


@dataclass(frozen=True, slots=True)
class Minting:
    """How an exchange went; `life_seconds` 0 and `fault` set when it failed."""

    key: FederatedKey
    models: tuple[str, ...]
    life_seconds: int
    fault: ExchangeFault | None = None
    holder: Subject | None = None


_Which = tuple[str, int, tuple[str, ...], str]
"""Key, its version, models that the token is narrowed to, and the holder where it was minted for one alone."""


@dataclass(slots=True)
class _Token:
    secret: Secret
    renew_ns: int
    last_ns: int


class FederatedKeys:
    """Implements `KeyStore`."""

    def __init__(
        self,
        keys: Sequence[FederatedKey],
        endpoints: TokenEndpoints,
        assertions: Assertions,
        agents: AgentTokens,
        clock: Clock,
        entropy: Entropy,
        on_minting: Callable[[Minting], None] = lambda _: None,
    ) -> None:
        """Mint nothing yet; `on_minting` is told, synchronously, of each exchange."""
        self._keys = {key.name: key for key in keys}
        self._endpoints = endpoints
        self._assertions = assertions
        self._agents = agents
        self._clock = clock
        self._entropy = entropy
        self._on_minting = on_minting
        self._tokens: dict[_Which, _Token] = {}
        self._minting: dict[_Which, asyncio.Task[_Token]] = {}
        self._pauses: Pauses[_Which, ExchangeFault] = Pauses()

    def __repr__(self) -> str:
        """Counts only."""
        return f"FederatedKeys(keys={len(self._keys)}, tokens={len(self._tokens)})"

    async def aclose(self) -> None:
        """Stop exchanges, forget tokens."""
        tasks = list(self._minting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tokens.clear()

    def records(self) -> Sequence[KeyRecord]:
        """Every rule: whether its exchange works shows when it is needed."""
        return tuple(_record(key) for key in self._keys.values())

    def find(self, name: str) -> KeyRecord | None:
        """See the port."""
        key = self._keys.get(name)
        return None if key is None else _record(key)

    async def secret(self, name: str, models: tuple[str, ...] = (), holder: Subject | None = None) -> Secret:
        """See the port. Waits for an exchange only where no token lives."""
        key = self._known(name)
        holder = None if key.assertion_file else holder
        if holder is None and not key.assertion_file:
            raise Refusal(
                Reason.KEY_UNAVAILABLE, f"key {name!r} is of nobody's lease here: it exchanges an agent's token"
            )
        which = (name, key.version, models if key.exchange.narrows else (), holder_name(holder))
        token, now = self._tokens.get(which), self._clock.now().boot_ns
        if token is not None and now < token.last_ns:
            if now >= token.renew_ns and self._pauses.current(which, self._clock.now()) is None:
                self._start(key, which, holder)
            return token.secret
        paused = self._pauses.current(which, self._clock.now())
        if paused is not None and which not in self._minting:
            raise _refusal(name, *paused)
        try:
            return (await asyncio.shield(self._start(key, which, holder))).secret
        except ExchangeFault as fault:
            raise _refusal(name, fault, PAUSE_SECONDS) from None

    async def mint(
        self, name: str, models: tuple[str, ...], life_seconds_max: int, holder: Subject | None = None
    ) -> Minted:
        """A token of its own for one lease, to be handed out: never one that others use.

        Raises:
            Refusal: KEY_UNAVAILABLE; DISCLOSURE_NOT_ALLOWED when it would live longer than `life_seconds_max`.
        """
        key = self._known(name)
        try:
            narrowed = models if key.exchange.narrows else ()
            minted = await self._exchange(key, narrowed, life_seconds_max, None if key.assertion_file else holder)
        except ExchangeFault as fault:
            raise _refusal(name, fault, PAUSE_SECONDS) from None
        if minted.life_seconds > life_seconds_max:
            raise Refusal(
                Reason.DISCLOSURE_NOT_ALLOWED,
                f"tokens of key {name!r} live {minted.life_seconds} s, longer than the {life_seconds_max} s within "
                "which the policy promises revocation; ask the platform team to shorten the provider's rule",
            )
        return minted

    def forget(self, name: str) -> None:
        """The provider refused a token of this key: mint anew for the next call."""
        for which in [which for which in self._tokens if which[0] == name]:
            del self._tokens[which]

    def _known(self, name: str) -> FederatedKey:
        key = self._keys.get(name)
        if key is None:
            raise Refusal(Reason.KEY_UNAVAILABLE, f"key {name!r} is not federated here; ask the platform team")
        return key

    def _start(self, key: FederatedKey, which: _Which, holder: Subject | None) -> asyncio.Task[_Token]:
        task = self._minting.get(which)
        if task is None:
            task = self._minting[which] = asyncio.create_task(self._renew(key, which, holder), name="token exchange")
            task.add_done_callback(lambda done: self._over(which, done))
        return task

    def _over(self, which: _Which, done: asyncio.Task[_Token]) -> None:
        del self._minting[which]
        if not done.cancelled():
            done.exception()  # looked at: nobody may be waiting for a renewal

    async def _renew(self, key: FederatedKey, which: _Which, holder: Subject | None) -> _Token:
        asked_ns = self._clock.now().boot_ns
        try:
            minted = await self._exchange(key, which[2], None, holder)
        except ExchangeFault as fault:
            if key.assertion_file or fault.state is not ExchangeState.NO_ASSERTION:
                # An agent's token that is not there is not asked for again: it comes by itself.
                self._pauses.failed(which, fault, self._clock.now(), fault.retry_after_seconds or 0.0)
            raise
        self._pauses.over(which)
        jitter = int.from_bytes(self._entropy.bytes(2), "big") / 65536
        life, last = minted.life_seconds, min(LAST_SECONDS, minted.life_seconds * LAST_SHARE)
        token = _Token(
            minted.token,
            asked_ns + int(life * (RENEW_AT + RENEW_JITTER * jitter) * NANOS),
            asked_ns + int((life - last) * NANOS),
        )
        self._tokens.pop(which, None)
        self._tokens[which] = token
        while len(self._tokens) > TOKENS_MAX:
            del self._tokens[next(iter(self._tokens))]
        return token

    async def _exchange(
        self, key: FederatedKey, models: tuple[str, ...], life_seconds_max: int | None, holder: Subject | None
    ) -> Minted:
        wanted = MintRequest(models, life_seconds_max, self._clock.now().wall_ms)
        try:
            own = key.assertion_file
            assertion = self._assertions.read(own) if own else self._agents.read(holder)
            minted = await self._endpoints.carry(key.exchange.exchange(assertion, wanted))
        except ExchangeFault as fault:
            self._on_minting(Minting(key, models, 0, fault, holder))
            raise
        self._on_minting(Minting(key, models, minted.life_seconds, holder=holder))
        return minted


def _record(key: FederatedKey) -> KeyRecord:
    return KeyRecord(
        key.name,
        key.provider,
        key.environment,
        KeyState.ENABLED,
        key.version,
        0,
        KeyKind.FEDERATED,
        key.exchange.narrows,
    )


def _refusal(name: str, fault: ExchangeFault, retry_after_seconds: float) -> Refusal:
    return Refusal(
        Reason.KEY_UNAVAILABLE,
        f"no token could be had for key {name!r}; try again, or ask the platform team",
        detail=f"{fault.state}: {fault}",
        retry_after_seconds=None if fault.state is ExchangeState.REFUSED else max(0.1, retry_after_seconds),
    )
