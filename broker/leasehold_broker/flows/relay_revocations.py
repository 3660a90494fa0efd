"""Tell replicas of revocations before they ask the log. Owns what is told, and what of it is believed at once.

The log is the record: an entry is told when it is committed, and what is heard is held against the log when that is
read next. An entry that follows the last known one is in force here at once; one that does not, says that something was
missed, and the log is asked (R5). With the relay away everything is found by asking the log, as without one.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.ports.revocation_relay import RevocationRelay

PAGE = 256
TELL_SECONDS = 1.0


class HearingLog(Protocol):
    """A log that can be told of its own entries."""

    def epoch(self) -> int:
        """Of the newest entry known here."""
        ...

    async def after(self, epoch: int, limit: int) -> Sequence[Revocation]:
        """Entries above `epoch`, in order."""
        ...

    async def hear(self, entries: Sequence[Revocation]) -> None:
        """Believe entries that follow; ask for those that are missing."""
        ...


class RelayRevocations:
    """Tells and hears, for one replica."""

    def __init__(
        self, relay: RevocationRelay, log: HearingLog, subscribe: Callable[[Callable[[], None]], None]
    ) -> None:
        """Between this relay and this log; `subscribe` is given what to call when the log has a new entry."""
        self._relay = relay
        self._log = log
        self._issued = asyncio.Event()
        self._told = 0
        self.heard = 0
        subscribe(self._issued.set)

    async def run(self) -> None:
        """One session with the relay.

        Raises:
            Refusal: STORE_UNAVAILABLE: it could not begin, or it is over.
        """
        await self._relay.connect()
        tasks = [asyncio.ensure_future(self._hear()), asyncio.ensure_future(self._tell())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear(self) -> None:
        while True:
            entries = await self._relay.hear()
            if entries:
                self.heard += len(entries)
                self._told = max(self._told, *(entry.epoch for entry in entries))
                await self._log.hear(entries)

    async def _tell(self) -> None:
        """What nobody has told within a moment of its commit, also what was committed while the relay was away."""
        while True:
            self._issued.clear()
            newest = self._log.epoch()
            if self._told < newest:
                for entry in await self._log.after(max(self._told, newest - PAGE), PAGE):
                    await self._relay.tell(entry)
                    self._told = max(self._told, entry.epoch)
            try:
                async with asyncio.timeout(TELL_SECONDS):
                    await self._issued.wait()
            except TimeoutError:
                continue
