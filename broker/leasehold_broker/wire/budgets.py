"""Budgets and changes of caps in both directions. Owns the strict reading and the bounds of a report."""

from leasehold.v1 import budget_service_pb2 as pb
from leasehold_broker.domain.amounts import UNLIMITED, Metric
from leasehold_broker.domain.budget_changes import BudgetChange, BudgetRow, BudgetRows, Direction
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.wire.records import timestamp, wall_ms_of

ROWS_BYTES_MAX = 256 * 1024
ROWS_MAX = 16_384
"""In one report: more than fit its bytes, unless they say nothing."""
TIME_MS_MAX = 253_402_300_799_999
"""The end of the year 9999: what comes after is no date to whoever reads it."""
NUMBER_MAX = 2**62
_DIRECTIONS = {
    pb.BUDGET_DIRECTION_RAISE: Direction.RAISE,
    pb.BUDGET_DIRECTION_LOWER: Direction.LOWER,
}
_ENUMS = {direction: number for number, direction in _DIRECTIONS.items()}


def direction_from_proto(value: "pb.BudgetDirection.ValueType") -> Direction:
    """Which way.

    Raises:
        Refusal: FIELD_INVALID.
    """
    found = _DIRECTIONS.get(value)
    if found is None:
        raise field_invalid("direction", "must be BUDGET_DIRECTION_RAISE or BUDGET_DIRECTION_LOWER")
    return found


def change_to_proto(change: BudgetChange) -> pb.BudgetChange:
    """The change."""
    message = pb.BudgetChange(
        name=change.name,
        number=change.number,
        budget=change.budget,
        metric=change.metric.value,
        direction=_ENUMS[change.direction],
        cap=change.cap,
        note=change.note,
        changed_by=change.changed_by,
        create_time=timestamp(change.create_wall_ms),
        request_id=change.request_id,
    )
    if change.until_wall_ms:
        message.end_time.CopyFrom(timestamp(change.until_wall_ms))
    return message


def change_from_proto(message: pb.BudgetChange) -> BudgetChange:
    """The change, as a sidecar reads it.

    Raises:
        Refusal: FIELD_INVALID: a number or cap out of range, or a metric or direction that this build does not know.
    """
    if not 0 < message.number <= NUMBER_MAX or not 0 <= message.cap <= UNLIMITED:
        raise field_invalid("budget_changes", "must have a positive number, and a cap that is not negative")
    return BudgetChange(
        message.number,
        message.budget,
        metric_from_text(message.metric),
        direction_from_proto(message.direction),
        message.cap,
        wall_ms_of(message.end_time) if message.HasField("end_time") else 0,
        message.note,
        message.changed_by,
        message.request_id,
        wall_ms_of(message.create_time),
    )


def metric_from_text(text: str) -> Metric:
    """A metric.

    Raises:
        Refusal: FIELD_INVALID.
    """
    try:
        return Metric(text)
    except ValueError:
        raise field_invalid("metric", f"must be one of {', '.join(Metric)}") from None


def rows_to_proto(report: BudgetRows) -> pb.BudgetRows:
    """The report; as many rows as fit `ROWS_BYTES_MAX`, with the true total."""
    message = pb.BudgetRows(total=report.total)
    size = 0
    for row in report.rows[:ROWS_MAX]:
        one = pb.BudgetRow(
            budget=row.budget,
            metric=row.metric.value,
            cap=row.cap if row.cap < UNLIMITED else None,
            settled=row.settled,
            held=row.held,
            hard=row.hard,
            changed=row.changed,
        )
        if row.reset_wall_ms:
            one.reset_time.CopyFrom(timestamp(row.reset_wall_ms))
        size += one.ByteSize() + 4
        if size > ROWS_BYTES_MAX:
            break
        message.rows.append(one)
    return message


def rows_from_proto(message: pb.BudgetRows) -> BudgetRows:
    """The report, as the collector reads it.

    Raises:
        Refusal: FIELD_INVALID.
    """
    if len(message.rows) > ROWS_MAX:
        raise field_invalid("budgets", f"must be at most {ROWS_MAX} rows, were {len(message.rows)}")
    for one in message.rows:
        if min(one.cap, one.settled, one.held) < 0 or one.cap > UNLIMITED:
            raise field_invalid("budgets", "must hold amounts that are not negative")
        if not 0 <= wall_ms_of(one.reset_time) <= TIME_MS_MAX:
            raise field_invalid("budgets.reset_time", "must be a time from 1970 to 9999")
    rows = tuple(
        BudgetRow(
            one.budget,
            metric_from_text(one.metric),
            one.cap if one.HasField("cap") else UNLIMITED,
            one.settled,
            one.held,
            wall_ms_of(one.reset_time) if one.HasField("reset_time") else 0,
            one.hard,
            one.changed,
        )
        for one in message.rows
    )
    return BudgetRows(rows, max(message.total, len(rows)))
