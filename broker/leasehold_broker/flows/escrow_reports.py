"""What sidecars say of their slices, until it is durable. Owns what of it is believed, and what is refused.

A report is kept as it came and booked in the next round: a round that fails, or that another replica came before, books
it again, upon what is right then. Reports are running totals, and each message has them all: the last one is enough.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.fleet_budget import SliceReport
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.escrow_windows import Draft, EscrowWindows, Key, Running

READS_MAX = 2
"""A slice that is not known after the books were read so many times is one that was lost."""

Life = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Booked:
    """What one round has booked: reports by life, and the budgets that they are of."""

    reports: Mapping[Life, Sequence[SliceReport]]
    budgets: frozenset[Key]


class EscrowReports:
    """The last report of each life that is not durable."""

    def __init__(self, windows: EscrowWindows, *, shared: bool) -> None:
        """On slices in these windows; `shared`: other replicas grant as well."""
        self._windows = windows
        self._shared = shared
        self._said: dict[Life, Sequence[SliceReport]] = {}
        self._doubted: dict[Life, int] = {}
        """Lives that know of grants which are not known here, and how often the books had been read by then."""

    def heard(self, name: str, life: str, reports: Sequence[SliceReport], *, lost: bool) -> None:
        """Keep what this life says of its slices. `lost`: the books are to be read anew; it is looked at after that.

        Raises:
            Refusal: FIELD_INVALID (another's slice), CENTRE_BEHIND (it was granted what is not known here).
        """
        self._said[name, life] = reports
        if not lost:
            self._check(name, life, reports)

    def left(self, name: str, life: str) -> None:
        """Its session is over; what it said stays."""
        self._doubted.pop((name, life), None)

    def doubted(self, name: str, life: str) -> bool:
        """True while it is open whether what this life knows of was granted elsewhere, or was lost."""
        return (name, life) in self._doubted

    def book(self, draft: Draft, now: Instant) -> Booked:
        """Put what was said into the books."""
        budgets: set[Key] = set()
        said = dict(self._said)
        for (name, life), reports in said.items():
            for report in reports:
                with suppress(Refusal):  # it was told so, or is with its next report
                    running = self._find(name, report)
                    if running is not None and _book(running, life, report, draft, now):
                        budgets.add(running.key)
        return Booked(said, frozenset(budgets))

    def done(self, booked: Booked) -> None:
        """It is durable."""
        for life, reports in booked.reports.items():
            if self._said.get(life) is reports:
                del self._said[life]

    def _check(self, name: str, life: str, reports: Sequence[SliceReport]) -> None:
        """Refuse what cannot be; what only another replica knows of is asked for first."""
        for report in reports:
            try:
                self._find(name, report)
            except Refusal as refusal:
                reads = self._doubted.setdefault((name, life), self._windows.reads)
                if self._shared and refusal.reason is Reason.CENTRE_BEHIND and self._windows.reads < reads + READS_MAX:
                    return
                raise
        self._doubted.pop((name, life), None)

    def _find(self, name: str, report: SliceReport) -> Running | None:
        """The window of the slice; None: long over, or of a budget that is no longer configured."""
        running = self._windows.of_fence(report.fence)
        if running is None:
            if report.fence > self._windows.fence:
                raise _behind(report)
            return None
        known = running.escrow.slices[report.fence]
        if known.sidecar != name or running.key != (report.budget, report.metric):
            raise field_invalid("slices", f"slice {report.fence} is not this sidecar's slice of {report.budget}")
        if report.granted > known.granted:
            raise _behind(report)
        return running


def _book(running: Running, life: str, report: SliceReport, draft: Draft, now: Instant) -> bool:
    """True when it said anything new."""
    known = running.escrow.slices[report.fence]
    before, held = (known.returned, known.reported, known.written_off), known.held
    freed = running.escrow.report(report.fence, life, report.returned, report.spent, report.held)
    if freed:
        draft.events.append(running.event(EventType.BUDGET_SLICE_RETURNED, known, freed, now))
    changed = before != (known.returned, known.reported, known.written_off)
    if changed:
        draft.changed[report.fence] = running
    return changed or known.held != held


def _behind(report: SliceReport) -> Refusal:
    return Refusal(
        Reason.CENTRE_BEHIND,
        f"the sidecar holds slice {report.fence} of {report.budget}, granted {report.granted}, which this collector "
        "does not know: its store was replaced or restored; put the newest copy back, or see "
        "deploy/runbooks/fleet-budgets.md",
    )
