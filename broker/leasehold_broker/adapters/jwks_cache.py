"""The public keys of one issuer, in memory. Owns when they are fetched; a known key never waits for the network.

An unknown key id causes at most one fetch, shared by all who wait, and at most `fetches_per_minute` in any minute,
counting failures: a flood of made-up ids cannot become a flood of fetches, and a rotated key is found at the first
token that names it. A failed fetch changes nothing: the last good set serves on, until it is older than its bound.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from leasehold_broker.adapters.jwk_set import KeySet, KeySetRefusedError, VerificationKey, read_key_set
from leasehold_broker.adapters.jwks_sources import FileKeySource, HttpKeySource, KeysNotFetchedError
from leasehold_broker.domain.issuer import IssuerRule
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.time import NANOS
from leasehold_broker.domain.workload_claims import rejected
from leasehold_broker.ports.clock import Clock

FILE_POLL_SECONDS = 2.0
RETRY_SECONDS = 30.0


class Source(Protocol):
    """Gives the document with the keys."""

    fetches_per_minute: int

    async def load(self) -> bytes | None:
        """The document, or None when it has not changed since the last call. Raises KeysNotFetchedError."""
        ...


class JwksCache:
    """Keys of one issuer rule. Lives on one event loop."""

    def __init__(
        self,
        rule: IssuerRule,
        clock: Clock,
        source: Source | None = None,
        on_failure: Callable[[str, str], None] = lambda _rule, _why: None,
    ) -> None:
        """Prepare; nothing is fetched yet.

        Args:
            rule: whose keys.
            clock: for the age of the set and the bound on fetches.
            source: instead of the one the rule names.
            on_failure: told rule name and reason each time a fetch fails or a set is refused.

        Raises:
            ValueError, OSError: the rule's key source is unusable.
        """
        self._rule = rule
        self._clock = clock
        self._source = source or (HttpKeySource(rule.keys) if rule.keys.url else FileKeySource(rule.keys))
        self._on_failure = on_failure
        self._set: KeySet | None = None
        self._good_ns = 0
        self._starts: deque[int] = deque(maxlen=self._source.fetches_per_minute)
        self._fetch: asyncio.Task[None] | None = None
        self._refresher: asyncio.Task[None] | None = None
        self.last_error = ""

    @property
    def failing(self) -> bool:
        """True when the last fetch failed, or its set was refused; what was fetched before serves until it is stale."""
        return bool(self.last_error)

    async def start(self) -> None:
        """Fetch once, then keep the set fresh in the background. A failure is no error here: it shows at first use."""
        await self.refresh()
        self._refresher = asyncio.create_task(self._refresh_on_time(), name=f"jwks {self._rule.name}")

    async def aclose(self) -> None:
        """Stop everything that runs."""
        tasks = [task for task in (self._refresher, self._fetch) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._refresher = self._fetch = None

    async def keys_for(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """The keys to try for a token, at least one.

        Raises:
            Refusal: JWT_UNKNOWN_KEY, or KEYS_OF_ISSUER_UNAVAILABLE when no usable set is at hand.
        """
        keys = self._known(key_id, algorithm)
        if not keys:
            await self.refresh()
            keys = self._known(key_id, algorithm)
        if keys:
            return keys
        if self._set is None or self._is_stale():
            raise rejected(
                Reason.KEYS_OF_ISSUER_UNAVAILABLE, f"no keys of {self._rule.name!r}: {self.last_error or 'not fetched'}"
            )
        raise rejected(Reason.JWT_UNKNOWN_KEY, "no key of the issuer has this key id and fits the algorithm")

    async def refresh(self) -> None:
        """Fetch now, or join the fetch that runs; nothing when the minute's fetches are used up. Never raises."""
        if self._fetch is None or self._fetch.done():
            now_ns = self._clock.now().boot_ns
            if len(self._starts) == self._starts.maxlen and now_ns - self._starts[0] < 60 * NANOS:
                return
            self._starts.append(now_ns)
            self._fetch = asyncio.create_task(self._load(), name=f"jwks fetch {self._rule.name}")
        # One waiter that gives up must not take the fetch away from the others.
        await asyncio.shield(self._fetch)

    def _known(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        return self._set.candidates(key_id, algorithm) if self._set is not None and not self._is_stale() else ()

    def _is_stale(self) -> bool:
        return self._clock.now().boot_ns - self._good_ns > self._rule.keys.stale_seconds_max * NANOS

    async def _load(self) -> None:
        try:
            data = await self._source.load()
            if data is not None:
                self._set = read_key_set(data, self._rule.key_uses)
        except Exception as error:  # noqa: BLE001 - whatever it is: it is told, and the next fetch is made all the same
            known = isinstance(error, KeysNotFetchedError | KeySetRefusedError)
            self.last_error = str(error) if known else f"unforeseen: {type(error).__name__}"
            self._on_failure(self._rule.name, self.last_error)
            return
        if data is not None or not self.last_error:
            # An unchanged file that was refused before stays refused.
            self._good_ns = self._clock.now().boot_ns
            self.last_error = ""

    async def _refresh_on_time(self) -> None:
        while True:
            if self._rule.keys.path:
                await asyncio.sleep(FILE_POLL_SECONDS)
            else:
                await asyncio.sleep(RETRY_SECONDS if self.last_error else self._rule.keys.refresh_seconds)
            await self.refresh()
