"""Ask for rotations that are due. Owns when the schedule is looked at; the log makes each due time one rotation."""

import asyncio
from collections.abc import Callable, Mapping

from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.rotation import Purpose, Trigger
from leasehold_broker.domain.rotation_schedule import NextTime, RotationSchedule, counts_from
from leasehold_broker.flows.request_rotation import RequestRotation
from leasehold_broker.flows.rotate_keys import EARLIER_MAX
from leasehold_broker.flows.rotated_key import AnyRotated, RotatedKey
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_source import SourceFault
from leasehold_broker.ports.rotation_log import RotationLog

LOOK_SECONDS = 30.0
BY = "schedule"


class ScheduleRotations:
    """Looks now and then, while this process leads."""

    def __init__(
        self,
        log: RotationLog,
        keys: Mapping[str, AnyRotated],
        schedules: Mapping[str, RotationSchedule],
        request: RequestRotation,
        clock: Clock,
        next_time: NextTime,
        leads: Callable[[], bool],
    ) -> None:
        """Ask through `request` for what is due by `schedules`, both by name of the key."""
        self._log = log
        self._keys = keys
        self._schedules = {name: schedule for name, schedule in schedules.items() if not schedule.idle}
        self._request = request
        self._clock = clock
        self._next_time = next_time
        self._leads = leads
        self._there_wall_ms = clock.now().wall_ms

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._leads():
                await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Ask for what is due now; a store that does not answer is asked again at the next look."""
        for name, schedule in self._schedules.items():
            try:
                await self._look(name, schedule)
            except (SourceFault, Refusal):
                continue

    async def _look(self, name: str, schedule: RotationSchedule) -> None:
        found = await self._log.last_rotations(name, EARLIER_MAX)
        last = next((each for each in found if each.purpose is Purpose.REPLACE), None)
        if last is not None and not last.over:
            return
        key = self._keys[name]
        # Nobody knows how old the credential of an engine is: the first time by age is now.
        stored = (await key.store.read(name)).created_wall_ms if isinstance(key, RotatedKey) else 0
        now = self._clock.now().wall_ms
        since, not_before = counts_from(stored, last, now)
        due = schedule.due_wall_ms(name, since, self._next_time, self._there_wall_ms)
        if due is None or now < max(due, not_before) or schedule.closed(now):
            return
        # A later attempt after a failure is a wish of its own.
        await self._request.wish(BY, f"{name}/{max(due, not_before)}", name, Trigger.SCHEDULE)
