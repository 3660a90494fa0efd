"""A world in which keys are rotated and everything may die at any moment, seen by someone who knows all.

Each effect, at the provider, in the store and in the log, passes `effect` before and after it: there the process dies
when the test wants it (`deaths`: after so many effects each), and the truth is checked: the key that is served works,
and no rotation has two keys.
"""

import asyncio
import inspect

from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_key_source import MemoryKeySource
from tests.fakes.memory_rotation_log import MemoryRotationLog
from tests.fakes.planted import planted
from tests.fakes.provider_account import ProviderAccount

from leasehold_broker.domain.rotation import Rotation, RotationLimits, RotationState, Trigger
from leasehold_broker.flows.rotate_keys import Pace, RotateKeys
from leasehold_broker.flows.rotated_key import RotatedKey
from leasehold_broker.flows.rotation_events import started
from leasehold_broker.flows.rotation_steps import RotationSteps
from leasehold_broker.ports.rotation_log import RotationRequest

KEY = "openai-prod"
PACE = Pace(look=0.002, lead=15.0, retry=0.001, retry_max=0.002, poll=0.001, tell=0.0)
LIMITS = RotationLimits(drain_min=0.0)
ROOT_EFFECTS = ("check", "rotate")
EFFECTS = ("mint", "sweep", "end", "put_pending", "promote", "retire", "advance", "request")


class Crash(BaseException):
    """The process dies here."""


class _Dying:
    """Passes every effect of `inner` through `effect`, before and after."""

    def __init__(self, inner, effect, names=(*EFFECTS, *ROOT_EFFECTS)):
        """Around this."""
        self._inner = inner
        self._effect = effect
        self._names = names

    async def _pass(self, where):
        held = self._effect(where)
        if inspect.isawaitable(held):  # frozen here
            await held

    def __getattr__(self, name):
        method = getattr(self._inner, name)
        if name not in self._names:
            return method

        async def through(*args):
            await self._pass(f"before {name}")
            result = await method(*args)
            await self._pass(f"after {name}")
            return result

        return through


class Users:
    """Implements `KeyUsers`."""

    def __init__(self):
        """Nobody."""
        self.names = ()

    def of_older(self, _key, _version, _since):
        """See the port."""
        return self.names


class RotationWorld:
    """One key, its provider and store, and the log; `life` is one process that rotates it."""

    def __init__(self, store=None, log=None, pace=PACE):
        """All is well; nothing was asked for."""
        self.pace = pace
        self.clock = ManualClock()
        self.account = ProviderAccount()
        self.store = store or MemoryKeySource()
        if store is None:
            self.store.put(KEY, planted("old"))
        self.log = log or MemoryRotationLog()
        self.users = Users()
        self.limits = LIMITS
        self.deaths = []
        self.crashed_at = ""
        self.dead = False
        self.stop_at = None
        self.stopped = False
        self.effects = []
        self.told = []
        self._lives = 0
        self._since = 0

    def effect(self, where):
        """Everything that lasts passes here."""
        if self.dead:
            raise Crash(where)
        self.check()
        self.effects.append(where)
        if self.stop_at in {each.state for each in self.log.rotations.values()}:
            self.stop_at, self.stopped, self.dead = None, True, True
            raise Crash(where)
        self._since += 1
        if self.deaths and self._since > self.deaths[0]:
            del self.deaths[0]
            self._since = 0
            self.die(where)
            raise Crash(where)

    def die(self, where):
        """This process has no more effects; the next one begins when it is gone."""
        self.crashed_at, self.dead = where, True

    def check(self):
        """What must hold at every moment: the served key works; a rotation has one key at most."""
        entry = self.store.entries[KEY]
        assert self.account.works(entry.current), f"the key that is served is dead, after {self.effects[-3:]}"
        for made in self.account.keys:
            assert not made.mark or len(self.account.minted_for(made.mark)) <= 1, "two keys of one rotation"

    def key(self, effect=None):
        """All that the rotation needs."""
        effect = effect or self.effect
        account = _Dying(self.account, effect)
        return RotatedKey(KEY, "openai", "prod", _Dying(self.store, effect), account, account, self.limits)

    def process(self, effect=None, *, alone=True):
        """A new process; `effect` sees what it does instead of the world's, `alone`: all others are dead."""
        self._lives += 1
        self.log.fresh_life = alone
        self.dead = False
        steps = RotationSteps(self.users)
        log = _Dying(self.log, self.effect) if effect is None else _Dying(self.log, effect, (*EFFECTS, "take_lead"))
        tell = lambda what, why: self.told.append((what, why))  # noqa: E731
        return RotateKeys(log, {KEY: self.key(effect)}, steps, self.clock, f"life-{self._lives}", self.pace, tell)

    async def ask(self, number=1, trigger=Trigger.OPERATOR):
        """A wish for a new key."""
        now = self.clock.now().wall_ms
        wanted = Rotation(f"{number:032x}", KEY, "prod", trigger, "dora", RotationState.PLANNED, now, now)
        return await self.log.request(RotationRequest(wanted, f"{number}"), lambda new: started(new, None, f"{number}"))

    async def state(self, number=1):
        """The rotation now."""
        return await self.log.find_rotation(f"{number:032x}")

    async def live(self, over, lives_max=50):
        """Processes, one after the other as they die, until `over` holds. Gives how many there were."""
        for life in range(1, lives_max + 1):
            process = self.process()
            running = asyncio.create_task(process.run())
            try:
                while not await over() and not self.crashed_at:  # noqa: ASYNC110 - the truth is in the log
                    await asyncio.sleep(0.001)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            if not self.crashed_at:
                return life
            self.crashed_at = ""
        raise AssertionError("it never ends")

    async def until_over(self, number=1):
        """Live until this rotation is over; gives it."""

        async def over():
            return (await self.state(number)).over

        await self.live(over)
        self.check()
        return await self.state(number)

    async def until(self, state):
        """Live until a rotation has this state, and not one effect longer."""
        self.stop_at, self.stopped = state, False

        async def there():
            return self.stopped

        await self.live(there)
        self.dead = False
