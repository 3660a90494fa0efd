"""Calendar windows against a naive search through local clocks, rolling windows against sums over every span."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leasehold_broker.domain.amounts import ALL_METRICS, NO_CAPS, UNLIMITED, ZERO, Amounts
from leasehold_broker.domain.ledger import AccountId, Hold, HoldId, Ledger, Leg
from leasehold_broker.domain.limits import Budget, Level, Raise, WindowLimit, soft_caps
from leasehold_broker.domain.time import NANOS, Instant, SteadyTime
from leasehold_broker.domain.windows import (
    ROLLING_SECONDS_MAX,
    ROLLING_SECONDS_MIN,
    Period,
    Rolling,
    window_at,
)

HOUR_MS = 3_600_000
ZONES = [
    UTC,
    *(
        ZoneInfo(name)
        for name in (
            "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia",
            "America/St_Johns", "America/Havana", "Africa/Casablanca", "Pacific/Kiritimati", "Asia/Kathmandu",
        )
    ),
]  # fmt: skip
PERIODS = [period for period in Period if period is not Period.TOTAL]
NOMINAL_MS = {Period.MINUTE: 60_000, Period.HOUR: HOUR_MS}
walls = st.integers(0, 4_000_000_000_000)
CAP = NO_CAPS._replace(requests=5)


def at(zone, *moment: int) -> int:
    """Unix milliseconds of a local time."""
    return round(datetime(*moment, tzinfo=zone).timestamp() * 1000)


@given(st.sampled_from(PERIODS), st.sampled_from(ZONES), walls)
@example(Period.DAY, ZoneInfo("Pacific/Apia"), 1_325_239_200_000)
@example(Period.DAY, ZoneInfo("America/St_Johns"), 1_289_097_060_000)
def test_b13_every_instant_is_in_exactly_one_window(period, zone, wall_ms) -> None:
    """Windows touch without gap or overlap, whatever a zone does to its clocks."""
    window = window_at(period, zone, wall_ms)
    assert window.start_ms <= wall_ms < window.end_ms
    for inside in (window.start_ms, (window.start_ms + window.end_ms) // 2, window.end_ms - 1):
        assert window_at(period, zone, inside) == window
    assert window_at(period, zone, window.start_ms - 1).end_ms == window.start_ms
    assert window_at(period, zone, window.end_ms).start_ms == window.end_ms
    assert window.end_ms - window.start_ms <= NOMINAL_MS.get(period, UNLIMITED)


def local_label(period: Period, zone, wall_ms: int) -> tuple[int, ...]:
    """The name of the window on a wall calendar there."""
    local = datetime.fromtimestamp(wall_ms / 1000, UTC).astimezone(zone)
    match period:
        case Period.DAY:
            return (local.year, local.month, local.day)
        case Period.WEEK:
            return tuple(local.isocalendar())[:2]
        case Period.MONTH:
            return (local.year, local.month)
        case Period.QUARTER:
            return (local.year, (local.month - 1) // 3)
        case _:
            return (local.year,)


@given(
    st.sampled_from([Period.DAY, Period.WEEK, Period.MONTH, Period.QUARTER, Period.YEAR]),
    st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("Asia/Kolkata"), UTC]),
    st.integers(1_500_000_000, 3_000_000_000),
)
def test_a_window_is_what_a_wall_calendar_says(period, zone, wall_s) -> None:
    """The label on the wall is the same all through a window, and another just before and at its end."""
    window = window_at(period, zone, wall_s * 1000)
    name = local_label(period, zone, wall_s * 1000)
    assert local_label(period, zone, window.start_ms) == name
    assert local_label(period, zone, window.end_ms - 1) == name
    assert local_label(period, zone, window.start_ms - 1) != name
    assert local_label(period, zone, window.end_ms) != name


@pytest.mark.parametrize(
    ("month", "day", "hours"), [(3, 29, 23), (3, 28, 24), (10, 25, 25), (10, 26, 24)], ids=["23", "24", "25", "24b"]
)
def test_days_of_23_and_25_hours_are_one_window_with_as_many_hours(month, day, hours) -> None:
    """In Berlin, 2026: the clocks go forward on 29 March and back on 25 October."""
    berlin = ZoneInfo("Europe/Berlin")
    window = window_at(Period.DAY, berlin, at(berlin, 2026, month, day, 12))
    assert (window.start_ms, window.end_ms - window.start_ms) == (at(berlin, 2026, month, day), hours * HOUR_MS)
    counted = defaultdict(int)
    for moment in range(window.start_ms, window.end_ms, 600_000):
        counted[window_at(Period.HOUR, berlin, moment)] += 1
    assert list(counted.values()) == [6] * hours


def test_hours_and_years_begin_where_the_zone_says() -> None:
    """In Kolkata an hour begins at half past in UTC; a week begins on Monday, a quarter and a year on the first."""
    kolkata = ZoneInfo("Asia/Kolkata")
    noon = at(UTC, 2026, 11, 24, 12)
    assert window_at(Period.HOUR, kolkata, noon).start_ms == at(UTC, 2026, 11, 24, 11, 30)
    assert window_at(Period.WEEK, UTC, noon).start_ms == at(UTC, 2026, 11, 23)
    assert window_at(Period.QUARTER, UTC, noon).start_ms == at(UTC, 2026, 10, 1)
    assert window_at(Period.YEAR, kolkata, noon).end_ms == at(kolkata, 2027, 1, 1)
    assert window_at(Period.TOTAL, UTC, noon) == window_at(Period.TOTAL, UTC, 0)


@given(st.integers(ROLLING_SECONDS_MIN, ROLLING_SECONDS_MAX))
def test_buckets_cover_the_length_and_at_most_one_bucket_more(seconds) -> None:
    """At most 61 buckets count; an amount counts for its length at least, and one bucket longer at most."""
    rolling = Rolling(seconds)
    steady = 1_795_000_000_123
    starts = rolling.live_starts_ms(steady)
    assert len(starts) <= 61
    assert starts[-1] <= steady < starts[-1] + rolling.bucket_ms
    assert starts[0] + rolling.counted_ms > steady >= starts[0] - rolling.bucket_ms + rolling.counted_ms
    assert seconds * 1000 <= rolling.counted_ms - rolling.bucket_ms < seconds * 1000 + rolling.bucket_ms


@given(
    st.integers(60, 200),
    st.lists(
        st.tuples(
            st.sampled_from((0, 1, 900, 1000, 7_000, 30_000, 59_999, 60_000, 200_000)),
            st.integers(1, 5),
            st.integers(0, 5),
            st.booleans(),
        ),
        max_size=40,
    ),
)
def test_b1_no_span_of_a_rolling_window_holds_more_than_its_cap(seconds, calls) -> None:
    """Whenever calls come and end: over any span of the window's length, what was reserved and not given back fits."""
    rolling, ledger = Rolling(seconds), Ledger()
    now, reserved = 1_000_000, {}

    def bucket(start: int) -> AccountId:
        return AccountId(f"b{start}")

    for number, (later, wanted, used, settle_first) in enumerate(calls):
        now += later
        open_ids = [hold.id for hold in ledger.holds()]
        if settle_first and open_ids:
            ledger.settle(open_ids[0], Amounts(requests=min(used, reserved[open_ids[0]][1])))
            reserved[open_ids[0]] = (reserved[open_ids[0]][0], min(used, reserved[open_ids[0]][1]))
        starts = rolling.live_starts_ms(now)
        account = ledger.open_bucket(
            AccountId("p"), bucket(starts[-1]), lambda live=starts: [bucket(one) for one in live], CAP, NO_CAPS
        )
        hold = ledger.reserve(HoldId(f"h{number}"), (Leg(account.id, ALL_METRICS),), Amounts(requests=wanted))
        if isinstance(hold, Hold):
            reserved[hold.id] = (now, wanted)
        else:
            oldest = rolling.bucket_start_ms(now) - rolling.counted_ms + rolling.bucket_ms
            counting = sum(amount for moment, amount in reserved.values() if moment >= oldest)
            assert counting + wanted > CAP.requests, "B10: it would have fitted"
        for end, _ in reserved.values():
            span = [amount for moment, amount in reserved.values() if end - seconds * 1000 <= moment <= end]
            assert sum(span) <= CAP.requests


def test_steady_time_neither_jumps_nor_returns() -> None:
    """It goes on with the boot clock when the wall clock is set, and begins behind nothing that was counted."""
    steady = SteadyTime(Instant(5_000, 7 * NANOS))
    assert steady.ms(Instant(99_000_000, 8 * NANOS)) == 6_000
    assert steady.ms(Instant(1, 9 * NANOS)) == 7_000
    assert SteadyTime(Instant(5_000, 0), at_least_ms=8_000).ms(Instant(5_000, NANOS // 2)) == 8_500


def test_a_raise_ends() -> None:
    """Raised caps are in force from their first moment up to their last; others stay as they are."""
    raised = Raise(100, 200, NO_CAPS._replace(requests=9))
    limit = WindowLimit(Level.KEY, Period.DAY, CAP._replace(cost_micro_usd=7), raises=(raised,))
    assert [limit.caps_at(wall).requests for wall in (99, 100, 199, 200)] == [5, 9, 9, 5]
    assert limit.caps_at(150).cost_micro_usd == 7
    assert [limit.changes_after(wall) for wall in (99, 100, 200)] == [[100, 200], [200], []]


@given(st.integers(1, 10**15), st.integers(1, 100))
def test_a_warning_is_due_at_the_percentage_and_not_before(cap, percent) -> None:
    """One unit below the threshold is quiet, the threshold itself is not."""
    quiet = soft_caps(NO_CAPS._replace(requests=cap, concurrency=3), percent)
    assert quiet.requests * 100 < cap * percent <= (quiet.requests + 1) * 100
    assert (quiet.concurrency, quiet.cost_micro_usd) == (UNLIMITED, UNLIMITED)
    assert soft_caps(CAP, 0) == NO_CAPS


@pytest.mark.parametrize(
    ("level", "label", "value", "on"),
    [
        (Level.KEY, "", "k", "key:k"),
        (Level.PROVIDER, "", "p", "provider:p"),
        (Level.ENVIRONMENT, "", "e", "environment:e"),
        (Level.LABEL, "team", "t", "label:team=t"),
        (Level.EVERYTHING, "", "", "everything"),
    ],
)
def test_a_budget_counts_what_it_names_and_nothing_else(level, label, value, on) -> None:
    """By key, provider, environment, label and value, or everything."""
    budget = Budget(value, WindowLimit(level, Period.DAY, CAP, label=label))
    assert budget.on == on
    assert budget.applies_to("p", "k", "e", {"team": "t"})
    assert budget.applies_to("x", "x", "x", {"team": "x"}) is (level is Level.EVERYTHING)
    assert budget.applies_to("x", "x", "x", {}) is (level is Level.EVERYTHING)


def test_a_closed_bucket_leaves_its_pool_and_an_empty_pool_is_forgotten() -> None:
    """What is no longer there does not count, and costs no memory."""
    ledger = Ledger()
    bucket, pool = AccountId("b"), AccountId("p")
    ledger.open_bucket(pool, bucket, lambda: [bucket], CAP, NO_CAPS)
    hold = ledger.reserve(HoldId("h"), (Leg(bucket, ALL_METRICS),), Amounts(requests=5))
    assert isinstance(hold, Hold)
    ledger.settle(hold.id, Amounts(requests=5))
    ledger.close_account(bucket)
    assert (ledger._pools, ledger.closings) == ({}, 1)
    again = ledger.open_bucket(pool, bucket, lambda: [bucket], CAP, NO_CAPS)
    assert again.counted.settled == ZERO
    assert timedelta(milliseconds=Rolling(86_400).bucket_ms) == timedelta(minutes=24)
