"""A disk that fills becomes an event, a state that is shown, and a metric; so does its end."""

import pytest
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.domain.centre_events import SAID_BY_CENTRE
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.write_rank import WriteRank, rank_of
from leasehold_broker.flows.watch_disk import WatchDisk
from leasehold_broker.ports.log_disk import DiskState
from leasehold_broker.wiring.collector_disk import FULL, disk_samples, watched_disk
from leasehold_broker.wiring.supervision import Supervisor


class Disk:
    """A disk whose state is set."""

    def __init__(self) -> None:
        """With room."""
        self.state = DiskState(low=False, room_bytes=100, reserve_bytes=10, reserve_bytes_wanted=10)

    async def look(self) -> DiskState:
        """As it is."""
        return self.state

    def fill(self) -> None:
        """To its end."""
        self.state = DiskState(low=True, room_bytes=0, reserve_bytes=7, reserve_bytes_wanted=10)


class Events:
    """Takes events, or refuses them."""

    def __init__(self) -> None:
        """Takes them."""
        self.taken: list[EventType] = []
        self.refuses = False

    async def record(self, event) -> None:
        """Take it."""
        if self.refuses:
            raise Refusal(Reason.STORE_UNAVAILABLE, "no")
        self.taken.append(event.type)


async def test_each_turn_is_told_once_and_again_when_it_could_not_be_recorded():
    """Low, then freed; what the log refused is recorded with the next look, and was shown at once."""
    disk, events, shown = Disk(), Events(), []
    watch = WatchDisk(disk, events, ManualClock(), lambda state: shown.append(state.low))
    await watch.step()
    assert events.taken == shown == []
    disk.fill()
    events.refuses = True
    with pytest.raises(Refusal):
        await watch.step()
    assert shown == [True]
    events.refuses = False
    await watch.step()
    await watch.step()
    disk.state = Disk().state
    await watch.step()
    await watch.step()
    assert events.taken == [EventType.AUDIT_DISK_LOW, EventType.AUDIT_DISK_FREED]
    assert shown[-1] is False


async def test_health_and_metrics_say_that_the_disk_is_full():
    """Degraded while it lasts; four numbers; none of a log that has no disk of ours."""
    disk, clock, degraded = Disk(), ManualClock(), []
    tasks = Supervisor(clock, Events().record)
    tasks.show(degraded.append)
    watch = watched_disk(disk, Events(), clock, tasks).__self__
    disk.fill()
    await watch.step()
    assert FULL in tasks.failing
    assert [one.value for one in disk_samples(disk)] == [True, 0, 7, 10]
    disk.state = Disk().state
    await watch.step()
    assert degraded == [False, True, False]
    assert list(disk_samples(None)) == []


def test_a_responder_can_come_in_by_every_door_while_the_disk_is_full():
    """Whatever has to be recorded before somebody may revoke goes on upon the reserve."""
    for type_ in (EventType.OPERATOR_SIGNED_IN, EventType.AUDIT_READ, EventType.SIGNAL_RECEIVED):
        assert rank_of(type_) is WriteRank.SESSIONS


def test_only_what_the_centre_says_goes_on_upon_the_reserve():
    """What a stranger can cause by calling, and what sidecars send, is of the lowest rank."""
    assert {type_ for type_ in EventType if rank_of(type_) is not WriteRank.EVENTS} <= SAID_BY_CENTRE | {
        EventType.FINDING_HONEYTOKEN,
        EventType.TASK_FAILED,
        EventType.TASK_RECOVERED,
    }
    for type_ in (EventType.IDENTITY_REFUSED, EventType.AUDIT_REFUSED, EventType.SIGNAL_REFUSED):
        assert rank_of(type_) is WriteRank.EVENTS
