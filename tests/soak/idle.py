"""Many sidecars that have little to do, for as long as they are let: what wears out when nothing happens.

    python -m tests.soak.idle --minutes 15 --sidecars 20 --seed 7

Real sidecars over mutual TLS to a real collector, TCP. At random a process is stopped for seconds and goes on, an agent
makes a single call with the official SDK, a certificate is replaced, the collector is restarted, in peace or with
kill -9. Pauses and restarts are far within the authority time, so every call must be taken. Checked on the way and in
the end: no link broke that no restart explains; nobody's memory or descriptors grow; no log has a traceback or an
error; every call is in the log once, and the log holds; a revocation in the end reaches all.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.bench.fleet.stage import FleetStage, spiffe_id
from tests.bench.origin import MODEL
from tests.soak.audit import folder_of_a_run
from tests.unkind.real_house import Caller

from leasehold import LeaseholdClient
from leasehold.audit import verify
from leasehold.lease import LeaseHandle
from leasehold.operators import selector

AUTHORITY_SECONDS = 120
PAUSE_SECONDS = (0.5, 6.0)
QUIET_SECONDS = (0.2, 3.0)
SAMPLE_SECONDS = 5.0
STARTING_AT_ONCE = 3
CONVERGED_SECONDS_MAX = 120.0
RECONNECTED_SECONDS = 60.0
"""A link that broke so long after the collector was gone is still explained by that."""
WARM_SHARE = 0.3
"""Of the samples of a process, the first, in which it may grow: caches fill."""
GROWTH_BYTES_PER_HOUR_MAX = 16 * 1024 * 1024
GROWTH_BYTES_MIN = 3 * 1024 * 1024
"""Below this nobody can tell a slope from the pages that an allocator happens to touch."""
SAMPLES_MIN = 20
DESCRIPTORS_MAX = 4
"""By which the median of the later samples may be above that of the earlier."""
BROKE = "link to the collector failed"


@dataclass
class Samples:
    """Of one life of one process: when, resident bytes, open descriptors."""

    at: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def take(self, pid: int) -> None:
        """One more."""
        status = Path(f"/proc/{pid}/status").read_text()
        self.at.append(time.monotonic())
        self.resident.append(1024 * int(re.search(r"VmRSS:\s+(\d+)", status).group(1)))
        self.descriptors.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))

    def growth(self) -> tuple[float, float, float]:
        """Once warm: resident bytes an hour by a straight line, bytes over the time watched, descriptors."""
        warm = int(len(self.at) * WARM_SHARE)
        at, resident = self.at[warm:], self.resident[warm:]
        slope = statistics.linear_regression(at, resident).slope
        half = len(at) // 2
        first, second = self.descriptors[warm : warm + half], self.descriptors[warm + half :]
        return slope * 3600, slope * (at[-1] - at[0]), statistics.median(second) - statistics.median(first)


class IdleStage(FleetStage):
    """Starts few at a time; certificates can be replaced, and the collector restarted."""

    def __init__(self, root: Path, sidecars: int) -> None:
        """So many sidecars."""
        super().__init__(root, links=0, processes=0, sidecars=sidecars, authority_seconds=AUTHORITY_SECONDS)
        self._starting = asyncio.Semaphore(STARTING_AT_ONCE)

    async def start(self, name: str) -> None:
        """As the stage does, when it is its turn."""
        async with self._starting:
            await super().start(name)

    def replace_certificate(self, name: str) -> None:
        """A new pair from the same authority, for a sidecar or the collector."""
        identity = () if name == "collector" else (spiffe_id(name),)
        self._authority.issue(*identity).files(self._certificates, name)


class IdleSoak:
    """One run."""

    def __init__(self, stage: IdleStage, seconds: float, seed: int) -> None:
        """On this stage, which serves."""
        self._stage = stage
        self._seconds = seconds
        self._chance = random.Random(seed)
        self._busy = asyncio.Lock()
        """One process at a time is stopped or restarted."""
        self._away: list[tuple[datetime, datetime]] = []
        """When the collector was restarted: a link may break then."""
        self.done: Counter[str] = Counter()
        self.samples: dict[tuple[str, int], Samples] = {}
        self.leases: dict[str, LeaseHandle] = {}
        self.callers: dict[str, Caller] = {}
        self.taken: Counter[str] = Counter()
        self.refused: list[str] = []

    async def run(self) -> None:
        """To its end.

        Raises:
            AssertionError: something does not hold; it says what.
        """
        with ExitStack() as stack:
            for number, name in enumerate(self._stage.whole):
                await asyncio.to_thread(self._lease, stack, number, name)
            over = time.monotonic() + self._seconds
            async with asyncio.TaskGroup() as group:
                for work in (self._call, self._pause, self._rotate, self._restart, self._watch):
                    group.create_task(self._until(over, work))
            for name in self._stage.whole:
                await self._one_call(name)
            await self._check()

    def _lease(self, stack: ExitStack, number: int, name: str) -> None:
        token = self._stage.workload(f"agent-{name}", f"agents/{name}/{number}", team="red")
        client = stack.enter_context(LeaseholdClient(self._stage.sidecar_target(name), token, timeout_seconds=60))
        lease = client.acquire(provider="anthropic", budget="50", ttl="60m", renew=False)
        self.leases[name], self.callers[name] = lease, Caller(lease, MODEL)
        stack.callback(self.callers[name].close)
        stack.callback(lease.abandon)

    async def _until(self, over: float, work: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < over:
            await work()

    async def _call(self) -> None:
        await asyncio.sleep(self._chance.uniform(*QUIET_SECONDS))
        await self._one_call(self._chance.choice(self._stage.whole))

    async def _one_call(self, name: str) -> None:
        end = await asyncio.to_thread(self.callers[name].call)
        if end == "taken":
            self.taken[name] += 1
        else:
            self.refused.append(f"{name} {end} {datetime.now(UTC):%H:%M:%S}")

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.uniform(*QUIET_SECONDS))
        name = self._chance.choice(("collector", *self._stage.whole))
        async with self._busy:
            process = self._stage.serving(name).process
            process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))
            finally:
                process.send_signal(signal.SIGCONT)
        self.done["pauses"] += 1

    async def _rotate(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.05, 0.15) * self._seconds)
        name = self._chance.choice(("collector", *self._stage.whole))
        self._stage.replace_certificate(name)
        self.done["certificates"] += 1

    async def _restart(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.2, 0.3) * self._seconds)
        async with self._busy:
            began = datetime.now(UTC)
            if self._chance.random() < 0.5:
                await self._stage.stop("collector")
            else:
                await self._stage.crash("collector")
            await self._stage.start_again()
            self._away.append((began, datetime.now(UTC)))
        self.done["restarts"] += 1

    async def _watch(self) -> None:
        await asyncio.sleep(min(SAMPLE_SECONDS, self._seconds / 20))
        for name in ("collector", *self._stage.whole):
            running = self._stage._serving.get(name)
            if running is not None and running.process.returncode is None:
                self.samples.setdefault((name, running.process.pid), Samples()).take(running.process.pid)

    async def _check(self) -> None:
        assert not self.refused, f"refused within the authority time: {self.refused}"
        with self._stage.responder() as operator:
            revoked = await asyncio.to_thread(operator.revoke, selector(subject="agents/*"), note="end of the soak")
            name = revoked.progress.entry.name
            told = await asyncio.to_thread(lambda: list(operator.watch_progress(name, CONVERGED_SECONDS_MAX)))
            rows = told[-1].sidecars
            assert {row.sidecar for row in rows} == set(self._stage.whole)
            assert all(row.applied_epoch >= revoked.progress.entry.epoch for row in rows), "not all have acknowledged"
            ends = {name: await asyncio.to_thread(caller.call) for name, caller in self.callers.items()}
            assert set(ends.values()) == {"LEASE_REVOKED"}, ends
            await self._told(operator)
            heads = await asyncio.to_thread(operator.heads)  # first: the log goes on growing
            records = await asyncio.to_thread(lambda: list(operator.events()))
        verdict = verify(((str(record.position), record) for record in records), heads)
        assert verdict.holds, (verdict.flaw, verdict.unseen, verdict.gaps, verdict.held, verdict.wrong)
        self._check_calls([record.event() for record in records])
        self._check_logs()
        self._check_growth()

    async def _told(self, operator) -> None:
        """Return once the last refusal of each sidecar is in the log: what came before it is then, too."""
        deadline = time.monotonic() + CONVERGED_SECONDS_MAX
        waiting = set(self._stage.whole)
        while waiting:
            assert time.monotonic() < deadline, f"never told: {sorted(waiting)}"
            records = await asyncio.to_thread(lambda: list(operator.events(type="call.refused")))
            waiting -= {record.stream for record in records if record.event()["reason"] == "LEASE_REVOKED"}
            await asyncio.sleep(0.2)

    def _check_calls(self, events: list[dict]) -> None:
        settled = [event for event in events if event["type"] == "call.settled"]
        assert len({event["details"]["call"] for event in settled}) == len(settled), "a call came twice"
        counted = Counter(event["lease"] for event in settled)
        wanted = {self.leases[name].name: count for name, count in self.taken.items()}
        assert counted == wanted, f"{counted} is not {wanted}"

    def _check_logs(self) -> None:
        for name in ("collector", *self._stage.whole):
            text = (self._stage.layout.logs / f"{name}.log").read_text()
            assert "Traceback" not in text, f"{name} has a traceback"
            lines = [json.loads(line) for line in text.splitlines()]
            errors = [line for line in lines if line["level"] == "error"]
            assert not errors, f"{name}: {errors[:3]}"
            broken = [line for line in lines if line["event"] == BROKE and not self._explained(line["time"])]
            assert not broken, f"{name} lost its link and no restart explains it: {broken[:3]}"

    def _explained(self, at: str) -> bool:
        moment = datetime.fromisoformat(at)
        return any(began <= moment <= ended + timedelta(seconds=RECONNECTED_SECONDS) for began, ended in self._away)

    def _check_growth(self) -> None:
        for (name, pid), samples in self.samples.items():
            if len(samples.at) < SAMPLES_MIN:
                continue  # a life of the collector between two restarts
            an_hour, watched, descriptors = samples.growth()
            self.done["processes watched"] += 1
            assert descriptors <= DESCRIPTORS_MAX, f"{name} ({pid}) keeps {descriptors:.0f} descriptors more"
            resident = samples.resident[:: len(samples.at) // SAMPLES_MIN]
            assert watched < GROWTH_BYTES_MIN or an_hour < GROWTH_BYTES_PER_HOUR_MAX, (
                f"{name} ({pid}) grows by {an_hour / 2**20:.1f} MiB an hour: {resident}"
            )

    def largest(self, what: str) -> str:
        """Of whom the resident memory grew most an hour, once warm."""
        found = [
            (samples.growth()[0], samples.resident[-1])
            for (name, _), samples in self.samples.items()
            if name.startswith(what) and len(samples.at) >= SAMPLES_MIN
        ]
        if not found:
            return "not watched for long enough"
        slope = max(found)[0]
        return f"at most {max(one[1] for one in found) / 2**20:.0f} MiB, {slope / 2**20:+.1f} MiB an hour"


async def soak(folder: Path, seconds: float, sidecars: int, seed: int) -> IdleSoak:
    """Run it; gives what was found, after everything was checked."""
    async with IdleStage(folder, sidecars) as stage:
        run = IdleSoak(stage, seconds, seed)
        await run.run()
    return run


def main() -> None:
    """Run and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--sidecars", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    os.umask(0o077)
    began = time.monotonic()
    with folder_of_a_run() as folder:
        run = asyncio.run(soak(folder, 60 * asked.minutes, asked.sidecars, asked.seed))
    done = ", ".join(f"{count} {what}" for what, count in sorted(run.done.items()))
    sys.stdout.write(
        f"{sum(run.taken.values())} calls of {asked.sidecars} sidecars, all taken, each told once; {done}; "
        f"resident memory of a sidecar {run.largest('sidecar-')}, of the collector {run.largest('collector')}; "
        f"no error in any log; {time.monotonic() - began:.0f} s\n"
    )


if __name__ == "__main__":
    main()
