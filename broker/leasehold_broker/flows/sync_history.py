"""Whether what a sidecar has applied is how the log begins: of revocations, and of changes of caps. Owns who is behind.

By numbers alone a collector that was restored from an older copy would count as applied what never was (decision 0054).
"""

from typing import Protocol

from leasehold_broker.domain.budget_changes import BudgetChangeHistory
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.domain.sync import SyncMessage
from leasehold_broker.ports.budget_changes import BudgetChangeLog
from leasehold_broker.ports.revocation_log import RevocationLog

PAGE = 1000


class SyncLog(RevocationLog, BudgetChangeLog, Protocol):
    """What sidecars are kept in step with."""


class ReadBudgetHistory:
    """The history of one log."""

    def __init__(self, log: BudgetChangeLog) -> None:
        """Nothing is read."""
        self._log = log
        self.history = BudgetChangeHistory()

    async def newest(self) -> int:
        """Number of the newest change, once the history has it.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        number = self._log.budget_change_number()
        while len(self.history) < number:
            known = len(self.history)
            page = await self._log.budget_changes_after(known, PAGE)
            # Others may have read the same meanwhile.
            self.history.extend(change for change in page if change.number > len(self.history))
            if not page:
                break
        return min(number, len(self.history))


def check_history(message: SyncMessage, log: SyncLog) -> None:
    """A sidecar never knows more than the centre, and nothing else.

    Raises:
        Refusal: CENTRE_BEHIND, FIELD_INVALID.
    """
    if not agrees(message, log):
        raise behind(message.applied_epoch, log.epoch())
    if any(entry.epoch > message.applied_epoch for entry in message.applied):
        raise field_invalid("applied", "names an epoch above applied_epoch")


def check_budget_history(message: SyncMessage, budgets: ReadBudgetHistory) -> None:
    """The same of changes of caps.

    Raises:
        Refusal: CENTRE_BEHIND.
    """
    if not agrees_in_budgets(message, budgets):
        raise behind_in_budgets(message.applied_budget_change, len(budgets.history))


def agrees_in_budgets(message: SyncMessage, budgets: ReadBudgetHistory) -> bool:
    """True when the changes that the sidecar has applied are how this log begins; see `agrees`."""
    if message.budget_history is None:
        return message.applied_budget_change <= len(budgets.history)
    return budgets.history.begins_with(message.applied_budget_change, message.budget_history)


def agrees(message: SyncMessage, log: SyncLog) -> bool:
    """True when what the sidecar has applied is how this log begins; of a build that tells no digest, its number."""
    if message.history is None:
        return message.applied_epoch <= log.epoch()
    return log.history().begins_with(message.applied_epoch, message.history)


def behind(applied: int, epoch: int) -> Refusal:
    """The collector has lost history: nothing may go on before an operator looked."""
    return Refusal(
        Reason.CENTRE_BEHIND,
        f"the sidecar has applied revocations up to {applied}, this collector knows {epoch}, and not the same: its "
        "store was replaced or restored; put the newest copy back, or see deploy/runbooks/audit.md",
    )


def behind_in_budgets(applied: int, known: int) -> Refusal:
    """The collector has lost changes of caps."""
    return Refusal(
        Reason.CENTRE_BEHIND,
        f"the sidecar has applied {applied} changes of budgets, this collector knows {known}, and not the same: its "
        "store was replaced or restored; put the newest copy back, or see deploy/runbooks/audit.md",
    )
