"""When a key is due: by age, by cron, spread by jitter, held back by blackouts."""

from dataclasses import replace
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest
from tests.domain.test_rotation import planned

from leasehold_broker.adapters.cron import next_time, wrong_cron
from leasehold_broker.config.read import ConfigError
from leasehold_broker.config.rotations import RotationAt
from leasehold_broker.domain.rotation import RotationLimits, RotationState
from leasehold_broker.domain.rotation_schedule import (
    AFTER_FAILURE_MS,
    DAY_MS,
    DAYS,
    Blackout,
    RotationSchedule,
    counts_from,
)
from leasehold_broker.wiring.rotations import check_rotations

BERLIN = ZoneInfo("Europe/Berlin")


def ms(text, zone=BERLIN):
    """Unix milliseconds of a local time."""
    return round(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1000)


def test_by_age_it_is_due_so_long_after_the_last_rotation():
    """Thirty days after, to the millisecond, where there is no jitter."""
    assert RotationSchedule(every_days=30).due_wall_ms("k", 1_000, next_time) == 1_000 + 30 * DAY_MS
    assert RotationSchedule().due_wall_ms("k", 1_000, next_time) is None


@pytest.mark.parametrize(
    ("since", "due"),
    [
        ("2026-03-27 12:00", "2026-03-28 03:30"),
        ("2026-03-28 03:30", "2026-03-29 03:30"),
        ("2026-10-24 12:00", "2026-10-25 03:30"),
    ],
)
def test_by_cron_it_is_due_at_the_next_time_in_its_zone(since, due):
    """Local time counts, also over the change to and from daylight saving; a time that was is not due again."""
    schedule = RotationSchedule(cron="30 3 * * *", zone=BERLIN)
    assert schedule.due_wall_ms("k", ms(since), next_time) == ms(due)


def test_a_time_of_cron_that_is_long_past_is_not_made_up_for():
    """A schedule that is switched on does not rotate an old key at once; one that was down for a while does."""
    schedule = RotationSchedule(cron="0 3 * * *", zone=BERLIN)
    stored, there = ms("2025-01-01 00:00"), ms("2026-11-25 12:00")
    assert schedule.due_wall_ms("k", stored, next_time, there) == ms("2026-11-26 03:00")
    assert schedule.due_wall_ms("k", stored, next_time, ms("2026-11-25 03:59")) == ms("2026-11-25 03:00")
    spread = replace(schedule, jitter_seconds=7200)
    assert spread.due_wall_ms("k", stored, next_time, ms("2026-11-25 05:30")) < ms("2026-11-25 05:00")


def test_jitter_is_the_same_for_all_who_ask_and_differs_between_keys():
    """Two leaders find the same moment; a hundred keys are spread over the whole of it, and none comes early."""
    schedule = RotationSchedule(every_days=1, jitter_seconds=3600)
    due = [schedule.due_wall_ms(f"key-{number}", 0, next_time) for number in range(100)]
    assert due == [schedule.due_wall_ms(f"key-{number}", 0, next_time) for number in range(100)]
    late = [each - DAY_MS for each in due]
    assert min(late) >= 0
    assert max(late) < 3_600_000
    assert max(late) - min(late) > 3_000_000


@pytest.mark.parametrize(
    ("blackout", "closed", "open_"),
    [
        (
            Blackout(("fri",), time(16), time(0)),
            ["2026-11-27 16:00", "2026-11-27 23:59"],
            ["2026-11-27 15:59", "2026-11-28 00:00"],
        ),
        (
            Blackout(("fri",), time(22), time(6)),
            ["2026-11-27 22:00", "2026-11-28 05:59"],
            ["2026-11-27 05:00", "2026-11-28 06:00"],
        ),
        (Blackout(("sat", "sun"), time(0), time(0)), ["2026-11-28 00:00", "2026-11-29 23:59"], ["2026-11-30 00:00"]),
        (Blackout(DAYS, time(9), time(18)), ["2026-11-25 09:00"], ["2026-11-25 18:00", "2026-11-25 08:59"]),
    ],
)
def test_blackouts_are_local_times(blackout, closed, open_):
    """Within, to the minute; a window over midnight belongs to the day that it begins on."""
    schedule = RotationSchedule(every_days=1, zone=BERLIN, blackouts=(blackout,))
    assert all(schedule.closed(ms(text)) for text in closed)
    assert not any(schedule.closed(ms(text)) for text in open_)
    assert not RotationSchedule(every_days=1, zone=UTC).closed(0)


@pytest.mark.parametrize(
    ("blackouts", "never"),
    [
        ((), False),
        ((Blackout(DAYS, time(0), time(0)),), True),
        ((Blackout(DAYS, time(6), time(18)), Blackout(DAYS, time(18), time(6))), True),
        ((Blackout(DAYS, time(6), time(18)), Blackout(DAYS, time(18), time(5, 59))), False),
        ((Blackout(DAYS[:5], time(0), time(0)), Blackout(("sat", "sun"), time(0), time(0))), True),
        ((Blackout(DAYS[:6], time(0), time(0)), Blackout(("sun",), time(0, 1), time(0))), False),
    ],
)
def test_blackouts_that_leave_no_minute_are_known(blackouts, never):
    """All of every day, two halves that meet, the week and its end; one minute that is left is enough."""
    assert RotationSchedule(every_days=1, blackouts=blackouts).never_open is never


@pytest.mark.parametrize(
    ("since", "due"),
    [
        ("2026-03-28 03:00", "2026-03-29 03:00"),
        ("2026-03-29 03:00", "2026-03-30 02:30"),
        ("2026-10-24 03:00", "2026-10-25 02:30"),
        ("2026-10-25 02:30", "2026-10-26 02:30"),
    ],
)
def test_a_time_that_the_clocks_skip_or_repeat_comes_once(since, due):
    """Half past two does not exist on one night, and is there twice on another: the key is rotated once on each."""
    schedule = RotationSchedule(cron="30 2 * * *", zone=BERLIN)
    assert schedule.due_wall_ms("k", ms(since), next_time) == ms(due)


def test_the_twenty_ninth_of_february_comes_in_leap_years():
    """Named, it is waited for; no month has a thirtieth of February."""
    schedule = RotationSchedule(cron="0 0 29 2 *", zone=BERLIN)
    assert schedule.due_wall_ms("k", ms("2026-11-26 00:00"), next_time) == ms("2028-02-29 00:00")
    assert wrong_cron("0 0 29 2 *") == ""
    assert wrong_cron("0 0 30 2 *")


@pytest.mark.parametrize("cron", ["* * * * * *", "0 3 * *", "@daily", "", "0 3 * * tue extra"])
def test_a_schedule_has_five_fields(cron):
    """The library takes six, the first of them seconds: "30 3 * * * *" would be every hour, at 3 minutes and 30."""
    assert "not 5" in wrong_cron(cron)


def test_a_schedule_that_never_comes_is_no_configuration():
    """Refused at the start, naming the key: it would look like a key that is rotated."""
    always = RotationSchedule(every_days=1, blackouts=(Blackout(DAYS, time(0), time(0)),))
    at = RotationAt("openai-prod", object(), always, RotationLimits())
    with pytest.raises(ConfigError, match="'openai-prod': closed leaves no minute"):
        check_rotations([at])
    check_rotations([replace(at, schedule=RotationSchedule(blackouts=always.blackouts))])
    with pytest.raises(ConfigError, match="it has 6 fields"):
        check_rotations([replace(at, schedule=RotationSchedule(cron="0 30 3 * * *"))])


def test_since_when_a_key_counts():
    """From its storing, or the last rotation by whomever; after a failure it stays due, but not for an hour."""
    last = replace(planned(), create_wall_ms=5_000, state_wall_ms=9_000, state=RotationState.DONE)
    assert counts_from(1_000, None, 9_000) == (1_000, 0)
    assert counts_from(8_000, last, 9_000) == (5_000, 0)
    failed = replace(last, state=RotationState.FAILED)
    assert counts_from(1_000, failed, 9_000) == (1_000, 9_000 + AFTER_FAILURE_MS)


def test_a_time_that_is_to_come_says_nothing():
    """A store's clock, or ours, was years ahead: the key is due, not in so many years; a day ahead is believed."""
    later = 9_000 + DAY_MS
    last = replace(planned(), create_wall_ms=later + 1, state_wall_ms=later + 1, state=RotationState.DONE)
    assert counts_from(later, None, 9_000) == (later, 0)
    assert counts_from(later + 1, None, 9_000) == (0, 0)
    assert counts_from(1_000, last, 9_000) == (0, 0)
    assert counts_from(1_000, replace(last, state=RotationState.FAILED), 9_000) == (1_000, 0)
