"""What goes wrong: hosts, disks, networks and clocks. Which kinds a seed has is drawn; each has its end in the heal."""

import asyncio
from typing import Any

from tests.simulation.fleet.disks import copy_directory, forget_revocations
from tests.simulation.fleet.network import DOWN, UP

from leasehold_broker.flows.publish_checkpoint import LogDamagedError

COPIES_MAX = 2


class Faults:
    """One seed's faults."""

    def __init__(self, world: Any) -> None:
        """Draw which there are."""
        self._world = world
        chance = world.chance
        all_ = self._all()
        del all_["centre forgets"], all_["deafen"]
        self.kinds = [kind for kind in all_ if chance.random() < 0.75] or list(all_)
        if world.settings.forgets:
            self.kinds += ["centre forgets", "centre forgets", "revoke", "revoke"]
        if world.settings.deafens:
            self.kinds += ["deafen", "deafen"]
        self.going = True

    def _all(self) -> dict[str, Any]:
        return {
            "break": self.break_,
            "deafen": self.deafen,
            "partition": self.partition,
            "crash": self.crash,
            "crash at a write": self.crash_at_a_write,
            "stop": self.stop,
            "copy": self.copy,
            "restore": self.restore,
            "centre": self.centre,
            "centre at a write": self.centre_at_a_write,
            "centre restored": self.centre_restored,
            "centre forgets": self.centre_forgets,
            "disk": self.disk,
            "spool": self.spool,
            "jump": self.jump,
            "revoke": self.revoke,
            "cap": self.cap,
            "ban": self.ban,
            "budget": self.budget,
        }

    async def run(self) -> None:
        """Go on until the heal."""
        world = self._world
        while True:
            await asyncio.sleep(world.chance.expovariate(1 / world.settings.fault_seconds))
            if self.going:
                await self._all()[world.chance.choice(self.kinds)]()

    def _some(self) -> Any:
        alive = [one for one in self._world.sidecars if one.alive]
        return self._world.chance.choice(alive) if alive else None

    def _later(self, seconds: float, what: Any) -> None:
        async def then() -> None:
            await asyncio.sleep(seconds)
            await what()

        self._world.spawn(then())

    # Network.

    async def break_(self) -> None:
        """Connections of a host are reset."""
        one = self._some()
        if one is not None:
            for stream in [each for each in self._world.streams if each.process is one.process]:
                self._world.seen["connection reset"] += 1
                stream.reset()

    async def deafen(self) -> None:
        """A middlebox takes all that one connection says to the centre, and lets through what the centre says."""
        one = self._some()
        if one is not None:
            for stream in [each for each in self._world.streams if each.process is one.process]:
                self._world.seen["connection deafened"] += 1
                self._world.network.cut(stream.up)

    async def partition(self) -> None:
        """Nothing gets through for a while: both ways, or one way."""
        world = self._world
        ways = world.chance.choice([(UP, DOWN), (UP,), (DOWN,)])
        hosts = world.names if world.chance.random() < 0.2 else [world.chance.choice(world.names)]
        until = world.loop.time() + world.chance.choice([0.5, 5.0, 15.0, 45.0])
        world.seen["partition" if len(ways) == 2 else f"partition {ways[0]} only"] += 1
        for host in hosts:
            for way in ways:
                world.network.path(host).blocked[way] = until

    # Sidecars.

    async def crash(self) -> None:
        """SIGKILL."""
        one = self._some()
        if one is not None:
            self._world.seen["sidecar crashed"] += 1
            one.kill()

    async def crash_at_a_write(self) -> None:
        """SIGKILL at one of the next commits, before or after it."""
        one = self._some()
        if one is not None:
            one.disk.dies_in = self._world.chance.randint(1, 5)
            one.disk.dies_after = self._world.chance.random() < 0.5
            self._world.seen[f"sidecar dies {'after' if one.disk.dies_after else 'before'} a commit"] += 1

    async def stop(self) -> None:
        """Stopped in order."""
        one = self._some()
        if one is not None and not one.rogue and not one.stopping:
            self._world.seen["sidecar stopped in order"] += 1
            one.process.spawn(one.stop(), f"{one.name} stops")

    async def copy(self) -> None:
        """A copy of a directory is started somewhere, and runs beside the original for a while."""
        world = self._world
        one = self._some()
        if one is None or one.rogue or sum(each.rogue for each in world.sidecars) >= COPIES_MAX:
            return
        world.seen["sidecar copied"] += 1
        rogue = world.start_copy(one)

        async def ends() -> None:
            rogue.kill()

        self._later(world.chance.uniform(1.0, 60.0), ends)

    async def restore(self) -> None:
        """A sidecar's directory is put back to what it was some time ago."""
        world = self._world
        one = self._some()
        if one is None or one.rogue:
            return
        kept = world.kept_copies.get(one.name)
        if kept is None:
            kept = world.kept_copies[one.name] = one.directory.with_name(f"{one.directory.name}-kept")
            copy_directory(one.directory, kept)
            return
        one.kill()
        await asyncio.sleep(0.01)
        world.seen["sidecar restored"] += 1
        world.put_back(one, kept)

    # The centre.

    async def centre(self) -> None:
        """SIGKILL."""
        if self._world.centre.up:
            self._world.seen["centre crashed"] += 1
            self._world.centre.kill()

    async def centre_at_a_write(self) -> None:
        """SIGKILL at one of the next commits."""
        world = self._world
        if world.centre.up:
            disk = world.centre.disk
            disk.dies_in, disk.dies_after = world.chance.randint(1, 8), world.chance.random() < 0.5
            world.seen[f"centre dies {'after' if disk.dies_after else 'before'} a commit"] += 1

    async def centre_restored(self) -> None:
        """An older copy is put in place of the store: it must not start, and the newest is put back (A5)."""
        world = self._world
        centre = world.centre
        if not centre.up or world.mending:
            return
        if centre.copy is None:
            centre.take_copy()
            centre.copied_size = len(world.audit.entries)
            return
        if not world.audit.checkpoints or world.audit.checkpoints[-1].size <= centre.copied_size:
            return
        world.mending = True
        centre.kill()
        await asyncio.sleep(0.01)
        newest = centre.directory.with_name("centre-newest")
        copy_directory(centre.directory, newest)
        copy_directory(centre.copy, centre.directory)
        world.audit.looking_away = True
        try:
            started = await centre.start()
        except LogDamagedError:
            world.seen["older copy of the centre refused"] += 1
        else:
            assert not started, "A5: an older copy of the log was served"
        centre.kill()
        await asyncio.sleep(0.01)
        copy_directory(newest, centre.directory)
        world.audit.looking_away = False
        centre.copy = None
        world.mending = False
        world.bring_centre_back(1.0)

    async def centre_forgets(self) -> None:
        """The newest revocations are gone from its store, as from an older copy; the log of events is whole."""
        world = self._world
        truth = world.revocations
        if not world.centre.up or world.mending or len(truth.issued) < 2:
            return
        world.mending = True
        world.centre.kill()
        await asyncio.sleep(0.01)
        kept = len(truth.issued) - world.chance.randint(1, min(4, len(truth.issued)))
        forget_revocations(world.centre.directory / "collector.db", kept)
        truth.forgotten(kept)
        world.seen["centre forgot revocations"] += 1
        world.mending = False
        world.bring_centre_back(world.chance.choice([0.5, 5.0]))

    async def disk(self) -> None:
        """A disk is full for a while, or fails until the process is started anew."""
        world = self._world
        disk = world.centre.disk
        if world.chance.random() < 0.6 and (one := self._some()) is not None:
            disk = one.disk
        full = world.chance.random() < 0.6
        world.seen["disk full" if full else "disk failed"] += 1
        disk.full, disk.failing = full, not full

        async def over() -> None:
            disk.full = disk.failing = False

        self._later(world.chance.uniform(0.05, 4.0), over)

    async def spool(self) -> None:
        """The centre is away for long: spools fill."""
        world = self._world
        world.seen["long outage"] += 1
        for host in world.names:
            for way in (UP, DOWN):
                world.network.path(host).blocked[way] = world.loop.time() + world.settings.authority_seconds * 0.9

    # Clocks, operators.

    async def jump(self) -> None:
        """The wall clock of a host is set: nobody's intervals may follow."""
        world = self._world
        world.seen["clock jumped"] += 1
        one = self._some()
        clock = world.centre.clock if one is None or world.chance.random() < 0.5 else one.clock
        world.escrow.rolling.clock_set |= clock is world.centre.clock
        clock.wall_off_ms += world.chance.choice([-3_600_000, -5000, 5000, 3_600_000])

    async def _at_centre(self, work: Any) -> None:
        if self._world.centre.up:
            self._world.centre.process.spawn(work(self._world.centre), "operator")

    async def revoke(self) -> None:
        """Responders."""
        operators = self._world.operators
        draw = self._world.chance.random()
        await self._at_centre(
            operators.revoke if draw < 0.6 else operators.revoke_at_once if draw < 0.85 else operators.lift
        )

    async def cap(self) -> None:
        """An operator."""
        await self._at_centre(self._world.operators.change_cap)

    async def ban(self) -> None:
        """A ban, a readmission, or an eviction."""
        operators = self._world.operators
        if operators.banned:
            name = operators.banned[0]
            await self._at_centre(lambda centre: operators.readmit(centre, name))
        else:
            await self._at_centre(operators.evict if self._world.chance.random() < 0.4 else operators.ban)

    async def budget(self) -> None:
        """The second budget is added to the centre's file, or taken out of it; it is started anew."""
        world = self._world
        if world.settings.requests_cap and world.centre.up:
            world.second = not world.second
            world.seen["budget added" if world.second else "budget removed"] += 1
            world.centre.kill()
