"""Slices of fleet budgets in both directions of the sync stream. Owns their strict reading and their bounds."""

from google.protobuf.duration_pb2 import Duration

from leasehold.v1 import sidecar_service_pb2 as pb
from leasehold_broker.domain.amounts import METRICS
from leasehold_broker.domain.fleet_budget import (
    FLEET_BUDGETS_MAX,
    FLEET_PREFIX,
    KEEP_ALL,
    NO_FENCE,
    Applies,
    SliceReport,
    SliceTold,
)
from leasehold_broker.domain.limits import Level
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.domain.time import NANOS
from leasehold_broker.wire.budgets import metric_from_text
from leasehold_broker.wire.records import timestamp, wall_ms_of

REPORTS_MAX = 8 * FLEET_BUDGETS_MAX * len(METRICS)
"""Of slices that run, and of earlier windows and lives that are not settled yet."""
TOTAL_MAX = 2**60
"""Of a running total; beyond is a mistake, or a lie."""
NAME_LENGTH_MAX = 1024
_LEVELS = frozenset(Level) - {Level.SUBJECT}


def report_from_proto(message: pb.SliceReport) -> SliceReport:
    """What a sidecar says of one slice.

    Raises:
        Refusal: FIELD_INVALID.
    """
    totals = (message.granted, message.returned, message.spent, message.held, message.want, message.need)
    if message.fence < NO_FENCE or not all(0 <= total <= TOTAL_MAX for total in totals):
        raise field_invalid("slices", f"must hold amounts from 0 to {TOTAL_MAX}")
    return SliceReport(_name(message.budget), metric_from_text(message.metric), message.fence, *totals)


def reports_from_proto(message: pb.SliceReports) -> tuple[SliceReport, ...]:
    """What a sidecar says of all of them.

    Raises:
        Refusal: FIELD_INVALID.
    """
    if len(message.reports) > REPORTS_MAX:
        raise field_invalid("slices", f"must be at most {REPORTS_MAX}, were {len(message.reports)}")
    return tuple(report_from_proto(one) for one in message.reports)


def reports_to_proto(reports: tuple[SliceReport, ...]) -> pb.SliceReports:
    """What this sidecar says."""
    return pb.SliceReports(
        reports=[
            pb.SliceReport(
                budget=one.budget,
                metric=one.metric.value,
                fence=one.fence,
                granted=one.granted,
                returned=one.returned,
                spent=one.spent,
                held=one.held,
                want=min(one.want, TOTAL_MAX),
                need=min(one.need, TOTAL_MAX),
            )
            for one in reports[:REPORTS_MAX]
        ]
    )


def slices_to_proto(slices: tuple[SliceTold, ...]) -> pb.BudgetSlices:
    """What the centre says."""
    return pb.BudgetSlices(slices=[_told_to_proto(one) for one in slices])


def _told_to_proto(one: SliceTold) -> pb.BudgetSlice:
    nanos = int(one.seconds * NANOS)
    message = pb.BudgetSlice(
        budget=one.budget,
        metric=one.metric.value,
        level=one.applies.level,
        label=one.applies.label,
        value=one.applies.value,
        fence=one.fence,
        granted=one.granted,
        keep=None if one.keep >= KEEP_ALL else one.keep,
        remaining=one.remaining,
        ttl=Duration(seconds=nanos // NANOS, nanos=nanos % NANOS),
    )
    if one.reset_wall_ms:
        message.reset_time.CopyFrom(timestamp(one.reset_wall_ms))
    return message


def slices_from_proto(message: pb.BudgetSlices) -> tuple[SliceTold, ...]:
    """What the centre says, as read by a sidecar.

    Raises:
        Refusal: FIELD_INVALID: of a kind that this build does not know, too; then nothing is believed, and authority
            runs out.
    """
    if len(message.slices) > FLEET_BUDGETS_MAX * len(METRICS):
        raise field_invalid("slices", f"must be at most {FLEET_BUDGETS_MAX * len(METRICS)}")
    return tuple(_told_from_proto(one) for one in message.slices)


def _told_from_proto(one: pb.BudgetSlice) -> SliceTold:
    keep = one.keep if one.HasField("keep") else KEEP_ALL
    seconds = one.ttl.seconds + one.ttl.nanos / NANOS
    if one.fence < NO_FENCE or not 0 <= one.granted <= TOTAL_MAX or min(keep, one.remaining, seconds) < 0:
        raise field_invalid("slices", "must hold amounts and times that are not negative")
    if one.level not in _LEVELS:
        raise field_invalid("slices.level", f"must be one of {', '.join(sorted(_LEVELS))}, was {one.level!r}")
    return SliceTold(
        _name(one.budget),
        metric_from_text(one.metric),
        Applies(one.level, one.label, one.value),
        one.fence,
        one.granted,
        keep,
        one.remaining,
        seconds,
        wall_ms_of(one.reset_time) if one.HasField("reset_time") else 0,
    )


def _name(text: str) -> str:
    if not text.startswith(FLEET_PREFIX) or len(text) > NAME_LENGTH_MAX or not text.isprintable():
        raise field_invalid("slices.budget", f"must be the printable name of a fleet budget ({FLEET_PREFIX}...)")
    return text
