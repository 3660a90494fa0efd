"""Make durable what sidecars report. Owns that those who report while a write is on its way share the next one.

A thousand sidecars acknowledge a revocation within a second: a transaction for each would cost more than they say.
"""

import asyncio
from collections.abc import Sequence

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.ports.revocation_log import KnownSidecar, RevocationLog, SidecarReport

REPORTS_MAX = 256
"""In one write."""

_Waiting = tuple[SidecarReport, asyncio.Future[None]]


class KeepReports:
    """One write at a time. A session waits for its own report, so no more of them wait than there are sessions."""

    def __init__(self, log: RevocationLog) -> None:
        """Write into this log."""
        self._log = log
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def run(self, sidecar: KnownSidecar, applied: Sequence[AppliedRevocation]) -> None:
        """Durable on return; a caller that is cancelled leaves its report to be written.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((SidecarReport(sidecar, applied), done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        """Until nobody waits. Ended before that, it refuses whoever waits: the next report begins anew."""
        some: list[_Waiting] = []
        try:
            while self._waiting:
                some, self._waiting = self._waiting[:REPORTS_MAX], self._waiting[REPORTS_MAX:]
                _tell(some, await self._fault([report for report, _ in some]))
        finally:
            self._writing = None
            left, self._waiting = self._waiting, []
            _tell([*some, *left], _unwritten())

    async def _fault(self, reports: Sequence[SidecarReport]) -> Exception | None:
        """Write; why it failed, or None."""
        try:
            await self._log.heard(reports)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return _unwritten()  # by the log, not by who ends this task: the others go on
        except Exception as error:  # noqa: BLE001 - handed to each that waits for it
            return error
        return None


def _tell(some: Sequence[_Waiting], fault: Exception | None) -> None:
    for _, done in some:
        if done.done():
            continue  # its session is gone, or it was told
        if fault is None:
            done.set_result(None)
        else:
            done.set_exception(fault)


def _unwritten() -> Refusal:
    return Refusal(
        Reason.STORE_UNAVAILABLE,
        "the writing of reports was given up, and it is not known what was written; try again later",
        retry_after_seconds=1.0,
    )
