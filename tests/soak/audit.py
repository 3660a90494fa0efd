"""Events through kill -9 of both sides at random: nothing lost, nothing doubled, chain and proofs verify.

    python -m tests.soak.audit --events 1000000 --seed 7

Sidecar (real store, real link) and collector (real server, real store, signing) are processes. Both are killed and
started again at random times until all is emitted and delivered. Then, from what is on the disks alone: every event
that a caller was told is durable is in the collector's log exactly once (A1, A3, A4); the log holds nothing that was
not emitted (A4); sequences are gapless in each epoch (A2); every life is closed (A6); each checkpoint that was ever
seen is a beginning of the last one (A5); and the exported copy holds against all of them.
"""

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from tests.fakes.centre import ORIGIN

from leasehold.audit import Record
from leasehold.audit_copy import verify_copy
from leasehold.checkpoint import Checkpoint
from leasehold.note import VerifierKey
from leasehold.tiles import write_copy
from leasehold_broker.adapters.checkpoint_key import open_checkpoint_key
from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.stream_head import LifeState
from leasehold_broker.wiring.collector_store import CollectorLog

ROOT = Path(__file__).parents[2]
STARTS_KILLED = 0.1
"""How many lives end while they start."""
STARTING_SECONDS = 1.5
READY_SECONDS_MAX = 300.0
"""A process that is not ready by then hangs, and the run fails for it."""
STARTS_IN_A_LIFE = 8.0
"""A life may last so many times as long as its start did: on a busy machine nothing but starts would be killed else."""


@dataclass(slots=True)
class Outcome:
    """What was found in the end."""

    events: int = 0
    committed: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    lives: int = 0
    checkpoints: int = 0
    seconds: float = 0.0


class Soak:
    """One run."""

    def __init__(self, folder: Path, events: int, seed: int, life_seconds: float) -> None:
        """Emit `events`; a life of either side lasts at most `life_seconds`, or longer on a busy machine."""
        self._folder = folder
        self._events = events
        self._chance = random.Random(seed)
        self._life_seconds = self._longest = life_seconds
        self.outcome = Outcome()
        self.notes: list[bytes] = []

    async def run(self) -> Outcome:
        """Kill and restart until everything is delivered; then check."""
        started = time.monotonic()
        watching = asyncio.create_task(self._watch_checkpoints())
        async with asyncio.TaskGroup() as group:
            centre = [group.create_task(work) for work in self._centre()]
            await self._keep_killing("sidecar", self._sidecar)
            for task in centre:
                task.cancel()
        watching.cancel()
        await asyncio.wait([watching])
        self.outcome.seconds = time.monotonic() - started
        await self._check()
        return self.outcome

    def _centre(self) -> list[Coroutine[None, None, None]]:
        """What is killed and restarted at the centre."""
        return [self._keep_killing("collector", self._collector)]

    def _checkpoint_copies(self) -> list[Path]:
        """Where an outsider sees the newest checkpoint."""
        return [self._folder / "checkpoint"]

    @contextlib.asynccontextmanager
    async def _store(self):
        """The log, once everything has stopped."""
        store = CollectorStore(self._folder / "collector.db", "collector", "zz-check")
        try:
            yield store
        finally:
            await store.close()

    async def _keep_killing(self, name: str, start) -> None:
        life = 0
        while True:
            life += 1
            began = time.monotonic()
            process = await _started(start(life))
            try:
                said = b""
                if self._chance.random() < STARTS_KILLED:
                    async with asyncio.timeout(self._chance.uniform(0.0, STARTING_SECONDS)):
                        said = await process.stdout.read()
                if b"ready" not in said:
                    said = await _ready(process, f"{name}, life {life},")
                self._longest = max(self._life_seconds, STARTS_IN_A_LIFE * (time.monotonic() - began))
                async with asyncio.timeout(self._chance.uniform(0.01, self._longest)):
                    said = await process.stdout.read()
                if b"done" in said and await process.wait() == 0:
                    return
                message = f"{name} ended by itself: {said!r}"
                raise AssertionError(message)
            except TimeoutError:
                self.outcome.kills[name] += 1
            finally:
                await killed(process)

    async def _collector(self, life: int) -> asyncio.subprocess.Process:
        return await self._process("tests.fakes.collector_process", str(self._folder), f"c{life:06d}")

    async def _sidecar(self, life: int) -> asyncio.subprocess.Process:
        del life
        target = f"unix:{self._folder / 'collector.sock'}"
        return await self._process("tests.soak.emitter", str(self._folder), target, str(self._events))

    async def _process(self, module: str, *arguments: str) -> asyncio.subprocess.Process:
        with (self._folder / "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=log
            )

    async def _watch_checkpoints(self) -> None:
        """What an outsider would have seen: the newest note, now and then."""
        while True:
            for path in self._checkpoint_copies():
                with contextlib.suppress(OSError):
                    note = path.read_bytes()
                    if note not in self.notes[-10:]:
                        self.notes.append(note)
            await asyncio.sleep(0.1)

    async def _check(self) -> None:
        async with self._store() as store:
            seen, heads = await self._read(store)
        promised: set[int] = set()
        for line in (self._folder / "committed").read_text().splitlines():
            first, last = line.split()
            promised |= set(range(int(first), int(last) + 1))
        lost = [number for number in promised if seen[number] == 0]
        doubled = [number for number, count in seen.items() if count > 1]
        assert not lost, f"{len(lost)} events lost, first {min(lost)} (A3)"
        assert not doubled, f"{len(doubled)} events twice, first {min(doubled)} (A2)"
        for head in heads[:-1]:
            assert head.state is LifeState.CLOSED, f"the tail of {head.epoch} is not known (A6)"
        self.outcome.committed, self.outcome.lives = len(promised), len(heads)
        assert len(promised) >= self._events

    async def _read(self, store: CollectorLog):
        """The whole log: counted, held against its chain and tree, and as a copy against every checkpoint seen."""
        signer = open_checkpoint_key(self._folder / "checkpoint.key", ORIGIN)
        key = VerifierKey.of_text(signer.verifier_key)
        seen: Counter[int] = Counter()
        newest = await store.newest_checkpoint()
        assert newest is not None
        records: list[Record] = []
        position = 0
        while page := await store.page(EventFilter(until_position=newest.head.size), position, 1000):
            for stored in page:
                one = stored.record
                if stored.type == "call.admitted":
                    seen[int(msgspec.json.decode(one.body)["request_id"].removeprefix("request-"))] += 1
                records.append(
                    Record(
                        stored.position, one.stream, one.epoch, one.sequence, one.previous_digest, one.digest, one.body
                    )
                )
            position = page[-1].position
        assert store.last_position() == newest.head.size, "the last events are not signed"
        copy = self._folder / "copy"
        assert write_copy(copy, records, newest.note, newest.head.size) == newest.head.root
        verdict = verify_copy(copy, key, [Checkpoint.of_note(note, key) for note in self.notes])
        assert verdict.holds, (verdict.flaw, verdict.wrong)
        self.outcome.events, self.outcome.checkpoints = len(records), len(verdict.held)
        return seen, [head for head in await store.heads() if head.stream == "sidecar-1"]


async def _ready(process: asyncio.subprocess.Process, name: str) -> bytes:
    """What it says once it is."""
    said = b""
    try:
        async with asyncio.timeout(READY_SECONDS_MAX):
            while b"ready" not in said:
                said = await process.stdout.readline()
                assert said, f"{name} ended before it was ready"
    except TimeoutError:
        message = f"{name} is not ready after {READY_SECONDS_MAX:.0f} s"
        raise AssertionError(message) from None
    return said


async def _started(start: Coroutine[None, None, asyncio.subprocess.Process]) -> asyncio.subprocess.Process:
    """A process that was just started; who is cancelled meanwhile leaves none behind."""
    starting = asyncio.ensure_future(start)
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await killed(await starting)
        raise


async def killed(process: asyncio.subprocess.Process) -> None:
    """SIGKILL, and the process is gone: also for who is cancelled meanwhile, for its locks are taken next."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    ending = asyncio.ensure_future(process.wait())
    try:
        await asyncio.shield(ending)
    finally:
        await ending
        process._transport.close()


@contextlib.contextmanager
def folder_of_a_run() -> Iterator[Path]:
    """For a run's files: thrown away when it holds, kept for whoever looks when it does not."""
    folder = Path(tempfile.mkdtemp(prefix="leasehold-soak-"))
    try:
        yield folder
    except BaseException:
        sys.stderr.write(f"the files of this run are kept in {folder}\n")
        raise
    shutil.rmtree(folder)


def main() -> None:
    """Run and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--life-seconds", type=float, default=8.0, help="longest life of a process")
    asked = parser.parse_args()
    os.umask(0o077)
    with folder_of_a_run() as folder:
        outcome = asyncio.run(Soak(folder, asked.events, asked.seed, asked.life_seconds).run())
    sys.stdout.write(
        f"{outcome.committed} events told durable, {outcome.events} in the log, 0 lost, 0 doubled; "
        f"kill -9: {outcome.kills['sidecar']} of the sidecar, {outcome.kills['collector']} of the collector; "
        f"{outcome.lives} lives, all closed; {outcome.checkpoints} checkpoints held; {outcome.seconds:.0f} s\n"
    )


if __name__ == "__main__":
    main()
