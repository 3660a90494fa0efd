"""How long a rotation has been in its state: over restarts, and whatever the clocks do."""

from leasehold_broker.domain.rotation_time import LOOK_SECONDS_MAX, StateTime
from leasehold_broker.domain.time import NANOS, Instant


def at(seconds, wall_ms=0):
    """A moment."""
    return Instant(wall_ms, round(seconds * NANOS))


def test_a_process_goes_on_from_what_the_one_before_it_had_counted():
    """Not from nothing, and not with the time between them: the new one's boot clock may say anything."""
    first = StateTime(0, at(1000))
    assert first.seconds(at(1030)) == 30
    kept = first.waited_ms(at(1050))
    assert kept == 50_000
    second = StateTime(kept, at(3))
    assert second.seconds(at(3)) == 50
    assert second.seconds(at(13)) == 60


def test_the_wall_clock_counts_for_nothing_and_a_suspended_machine_for_one_look():
    """A jump of a year changes nothing; a boot clock that leapt while nobody looked gives no rotation up."""
    time = StateTime(0, at(0, wall_ms=10**12))
    assert time.seconds(at(10, wall_ms=0)) == 10
    assert time.seconds(at(20, wall_ms=10**13)) == 20
    assert time.seconds(at(20 + 16 * 3600)) == 20 + LOOK_SECONDS_MAX
    assert time.seconds(at(30)) == 20 + LOOK_SECONDS_MAX
    assert time.seconds(at(40)) == 30 + LOOK_SECONDS_MAX
