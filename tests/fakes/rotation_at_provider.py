"""The world in which everything dies, with a real minter and the server of its provider in it.

A process dies between two requests, or while one is under way: then it never arrived, or was done and nobody heard of
it, or (`LATE`) it is done in the middle of the life that follows.
"""

import asyncio
import contextlib
from collections.abc import Callable
from enum import StrEnum

from tests.fakes.provider_admin.server import AnswerError
from tests.fakes.rotation_world import KEY, RotationWorld

from leasehold_broker.domain.rotation import RotationState
from leasehold_broker.domain.secret import Secret


class Fate(StrEnum):
    """What becomes of the request that is under way at a death."""

    LOST = "lost"
    DONE = "done"
    LATE = "late"


LATE_BY_REQUESTS = 3


class Account:
    """What a rotation asks of a provider: the real minter, a new one for each life; a probe that knows the truth."""

    def __init__(self, at, minter):
        """At this provider."""
        self.at, self.minter = at, minter

    async def mint(self, rotation):
        """See the port."""
        return await self.minter.mint(rotation)

    async def sweep(self, rotation, keep_id):
        """See the port."""
        await self.minter.sweep(rotation, keep_id)

    async def current_id(self, value):
        """See the port."""
        return await self.minter.current_id(value)

    async def end(self, key_id):
        """See the port."""
        await self.minter.end(key_id)

    async def probe(self, _record, key):
        """200 for a key that is taken."""
        return 200 if key.reveal().decode() in self.at.living() else 401


class AtProvider(RotationWorld):
    """One key in use at this provider.

    `deaths_at`: after so many requests each, and the fate of the request. `by_person` makes a key as a person does.
    """

    def __init__(self, world, old, by_person: Callable[[], str] | None = None):
        """`world` is of provider_admin.worlds; `old` serves."""
        super().__init__()
        self.store.put(KEY, old)
        self.world, self.old, self.by_person = world, old, by_person
        self.others = set(world.living()) - {old}
        self.deaths_at: list[tuple[int, Fate]] = []
        self.requests = 0
        self.ever: set[str] = set()
        self.slots, self.late_max = 1, 0
        self._since_death = 0
        self._late: list[tuple[object, int]] = []
        self._loop = asyncio.get_running_loop()

    def living(self):
        """Values that the provider takes."""
        found = set(self.world.living())
        self.ever |= found
        return found

    def process(self):
        """A new life, and a minter that knows nothing of earlier ones."""
        self.world.current = self.store.entries[KEY].current
        self.account = Account(self, self.world.minter())
        return super().process()

    def pass_request(self, request, where):
        """The gate of the provider's server: asked before and after each request, on its thread."""
        if self.dead:
            return False
        if where == "after":
            return True
        self.requests += 1
        for due in [due for due in self._late if due[1] <= self.requests]:
            self._late.remove(due)
            with contextlib.suppress(AnswerError):
                self.world.fake.handle(due[0])
        self._since_death += 1
        if not self.deaths_at or self._since_death <= self.deaths_at[0][0]:
            return True
        _, fate = self.deaths_at.pop(0)
        self._since_death = 0
        self.dead = True
        self._loop.call_soon_threadsafe(self.die, f"during request {self.requests}")
        if fate is Fate.LATE:
            self._late.append((request, self.requests + LATE_BY_REQUESTS))
        return fate is Fate.DONE

    def check(self):
        """The served key is taken; of a rotation there is one key at most, and one more where something is late."""
        living = self.living()
        assert self.store.entries[KEY].current in living, f"the key that is served is dead, after {self.effects[-3:]}"
        made = living - self.others - {self.old}
        assert len(made) <= self.slots + self.late_max, "two keys of one rotation"

    async def until_over(self, number=1):
        """Live until this rotation is over, with a person at hand where one is needed."""

        async def over():
            rotation = await self.state(number)
            if rotation.state is RotationState.AWAITING_KEY and self.by_person is not None and not self.dead:
                made, self.by_person = self.by_person, None
                await self.store.put_pending(KEY, Secret(made().encode()), rotation.id)
            return rotation.over

        await self.live(over)
        self.check()
        return await self.state(number)
