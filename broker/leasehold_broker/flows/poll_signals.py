"""Fetch security events from a transmitter that does not push. Owns that none is acknowledged before it is durable."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.security_events import SecurityEvent, SetRefusedError, SignalRule
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.receive_signals import ReceiveSignals
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.signal_source import SignalsNotFetchedError, SignalSource

RETRY_FIRST_SECONDS = 1.0
RETRY_SECONDS_MAX = 300.0


@dataclass(slots=True)
class PollState:
    """What the next question says about the last answer; and why the last one failed."""

    taken: list[str] = field(default_factory=list)
    refused: dict[str, SetRefusedError] = field(default_factory=dict)
    failing: str = ""


class PollSignals:
    """Fetches from one transmitter."""

    def __init__(
        self,
        rule: SignalRule,
        source: SignalSource,
        verify: Callable[[str, str, Instant], Awaitable[SecurityEvent]],
        take: ReceiveSignals,
        clock: Clock,
        seconds: float,
    ) -> None:
        """Ask this source, every `seconds` when it has nothing."""
        self.rule = rule
        self.state = PollState()
        self._source = source
        self._verify = verify
        self._take = take
        self._clock = clock
        self._seconds = seconds

    async def run(self) -> None:
        """Go on until cancelled; one that is away is waited for."""
        attempt = 0
        while True:
            try:
                more = await self.step()
            except (SignalsNotFetchedError, Refusal) as failure:
                self.state.failing = str(failure) or type(failure).__name__
                await asyncio.sleep(min(RETRY_SECONDS_MAX, RETRY_FIRST_SECONDS * 2.0 ** min(attempt, 30)))
                attempt += 1
                continue
            attempt, self.state.failing = 0, ""
            if not more:
                await asyncio.sleep(self._seconds)

    async def step(self) -> bool:
        """Ask once, and take what comes. True when there is more, or something to acknowledge.

        Raises:
            SignalsNotFetchedError: the same is told with the next question.
            Refusal: what is not taken yet comes again.
        """
        fetched = await self._source.poll(self.state.taken, self.state.refused)
        self.state.taken, self.state.refused = [], {}
        for token_id, token in fetched.tokens.items():
            try:
                event = await self._verify(self.rule.name, token, self._clock.now())
            except SetRefusedError as refused:
                await self._take.refused(self.rule, refused)
                self.state.refused[token_id] = refused
                continue
            try:
                await self._take.take(event, self.rule)
            except SetRefusedError as refused:
                self.state.refused[token_id] = refused
                continue
            self.state.taken.append(token_id)
        return fetched.more or bool(fetched.tokens)
