"""A fleet budget over real processes: sidecars under skewed load and the centre, killed at random.

Each sidecar reaches the centre through a relay that counts what crosses. First nobody is killed, and it is counted what
calls cost the centre; then all relays hold everything, and calls go on; then processes are killed; then the rest of the
budget is spent. At the end the stand-in's book, the sidecars' log and the centre's books are held against each other.
"""

import asyncio
import contextlib
import random
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anthropic
from tests.fakes import postgres
from tests.fakes.counting_relay import CountingRelay
from tests.fakes.ports import free_port
from tests.unkind.crashing_sidecar import book, served
from tests.unkind.stage_store import kept_in

from leasehold import LeaseholdClient
from leasehold.audit import verify
from leasehold.errors import LeaseholdError
from leasehold.http import anthropic_kwargs
from leasehold.lease import LeaseHandle
from leasehold.operators import OperatorClient
from leasehold.v1 import budget_service_pb2 as pb
from leasehold_broker.demo import files
from leasehold_broker.demo.stage import Stage, broker

BUDGET = "fleet:everything|total"
LEASE_CAP_MICRO_USD = 50_000_000
SECONDS_MAX = 120
QUIET_CALLS = 40
SILENT_CALLS = 5
PAUSE_SECONDS = 0.02
SKEW = 2.0
"""Each sidecar calls half as often as the one before."""
USABLE_PERCENT = 95
POSTGRES = "PostgreSQL"
SIDECARS_KILLED = 0.6
"""Of the kills, once each part of the centre has had one."""


@dataclass
class Found:
    """What was found; money in micro-USD."""

    kills: Counter[str] = field(default_factory=Counter)
    cap: int = 0
    served: int = 0
    charged: int = 0
    by_estimate: int = 0
    spent: int = 0
    lost: int = 0
    calls: int = 0
    quiet_calls: int = 0
    quiet_remote_calls: int = 0
    quiet_messages: int = 0
    silent_calls: int = 0
    silent_bytes: int = 0
    calls_without_database: int = 0
    refusals: Counter[str] = field(default_factory=Counter)

    @property
    def usable_percent(self) -> float:
        """Of the cap, what was spent."""
        return 100 * self.spent / self.cap


class FleetStage(Stage):
    """Sidecars with one budget over all; each stays on one port over its lives, and reaches the centre by a relay."""

    def __init__(self, root: Path, sidecars: int, cap: int, database: postgres.Cluster | None) -> None:
        """So many sidecars; with a database the centre is two replicas over it."""
        self.names = tuple(f"sidecar-{number}" for number in range(sidecars))
        super().__init__(root, chunk_ms=1, sidecars=self.names, authority_seconds=60)
        self.relays: dict[str, CountingRelay] = {}
        self.centres = ("collector",) if database is None else ("collector", "collector-2")
        self.parts = self.centres if database is None else (*self.centres, POSTGRES)
        self._cap, self._database = cap, database
        self._stack = contextlib.AsyncExitStack()

    def policy_text(self) -> str:
        """The demo's, with room for many lives: nothing but the fleet budget is in the way."""
        text = super().policy_text()
        for name in ("ttl_seconds_max", "life_seconds_max", "cost_micro_usd"):
            value = 86_400 if name.endswith("seconds_max") else LEASE_CAP_MICRO_USD
            text = re.sub(rf"{name} = \d+", f"{name} = {value}", text)
        return text

    async def start(self, name: str) -> None:
        """Write what is special into the file before the first start; then as the stage does."""
        config = self.layout.config(name)
        text = config.read_text() if config.exists() else ""
        if name == "collector" and "[[fleet_budgets]]" not in text:
            files.write(config, self._centre(text))
            if self._database is not None:
                await self._second_centre(config)
        elif name in self.names and name not in self.relays:
            relay = CountingRelay(self.layout.root / "run" / f"{name}.relay", lambda: self._sockets(name))
            self.relays[name] = await self._stack.enter_async_context(relay)
            text = text.replace(f"unix://{self.layout.socket('collector')}", f"unix://{relay.path}")
            files.write(config, text.replace("127.0.0.1:0", f"127.0.0.1:{free_port()}", 1))
        if name == POSTGRES:
            await asyncio.to_thread(self._database.start)
        elif name.startswith("collector-"):
            running = await self.processes.start(name, broker("collector", "--config", str(config)))
            self._serving[name] = running
            await self.processes.until_healthy(running, self.layout.socket(name))
        else:
            await super().start(name)

    async def crash(self, name: str) -> None:
        """Kill one on the spot; the database recovers from its log when it is started again."""
        if name == POSTGRES:
            await asyncio.to_thread(self._database.crash)
        else:
            await super().crash(name)

    async def __aexit__(self, *error) -> None:
        """Relays go last."""
        await super().__aexit__(*error)
        await self._stack.aclose()

    def refresh_tokens(self) -> None:
        """Tokens live for minutes, a run may for longer."""
        for name in self.names:
            self.workload(f"agent-{name}", f"agents/research/{name}", team="research")
            self.issuer.project(self.layout.token(name), f"sidecars/{name}", files.COLLECTOR_AUDIENCE)

    def _centre(self, text: str) -> str:
        text += f'\n[[fleet_budgets]]\non = "everything"\nperiod = "total"\ncost_micro_usd = {self._cap}\n'
        if self._database is None:
            return text
        password = files.write(self.layout.root / "password", postgres.PASSWORD)
        url = self._database.server.url().replace(f":{postgres.PASSWORD}@", "@")
        text = kept_in(f'[store]\nengine = "postgres"\nurl = "{url}"\npassword_file = "{password}"\n', text)
        key = self.layout.root / "checkpoint.key"
        return text + f'\n[audit]\norigin = "log.test/fleet"\nkey_file = "{key}"\n'

    async def _second_centre(self, config: Path) -> None:
        made = await self.processes.run(broker("collector", "--config", str(config), "--make-checkpoint-key"))
        assert made.code == 0, made.err
        text = (await asyncio.to_thread(config.read_text)).replace('name = "collector"', 'name = "collector-2"', 1)
        text = text.replace("/state/collector", "/state/collector-2")
        text = text.replace(str(self.layout.socket("collector")), str(self.layout.socket("collector-2")))
        files.write(self.layout.config("collector-2"), text)
        await self.start("collector-2")

    def _sockets(self, name: str) -> Sequence[Path]:
        """Of the centre, half of the sidecars at one and half at the other while both serve."""
        sockets = [self.layout.socket(one) for one in self.centres]
        return sockets if self.names.index(name) % 2 == 0 else sockets[::-1]

    def standing(self) -> pb.FleetBudget | None:
        """How the budget stands, as an operator is told by a replica that answers; None: none can say just now."""
        for name in self.centres:
            with contextlib.suppress(LeaseholdError), OperatorClient(f"unix://{self.layout.socket(name)}") as operator:
                (one,) = [each for each in operator.budgets().fleet_budgets if each.budget == BUDGET]
                return one
        return None


class Agents:
    """One agent at each sidecar, with the official SDK; the first calls without a pause, each next half as often."""

    def __init__(self, leases: Sequence[LeaseHandle], seed: int) -> None:
        """Start the threads; they wait."""
        self.refusals: Counter[str] = Counter()
        self._go, self._over = threading.Event(), False
        self._threads = [
            threading.Thread(target=self._call, args=(number, lease, seed), name=f"agent {number}")
            for number, lease in enumerate(leases)
        ]
        for thread in self._threads:
            thread.start()

    @contextlib.contextmanager
    def calling(self):
        """Call, within."""
        self._go.set()
        try:
            yield
        finally:
            self._go.clear()

    def end(self) -> None:
        """Stop the threads."""
        self._over = True
        self._go.set()
        for thread in self._threads:
            thread.join(SECONDS_MAX)

    def _call(self, number: int, lease: LeaseHandle, seed: int) -> None:
        rng = random.Random(f"{seed}/{number}")
        with anthropic.Anthropic(**anthropic_kwargs(lease), max_retries=0, timeout=20) as claude:
            while self._go.wait() and not self._over:
                words = rng.choice((25, 40, 50))
                ask = {"max_tokens": 60, "messages": [{"role": "user", "content": f"Speak in {words} words."}]}
                try:
                    claude.messages.create(model="claude-haiku-5-5", **ask)
                except anthropic.APIStatusError as refused:
                    self.refusals[refused.response.headers.get("leasehold-reason", str(refused.status_code))] += 1
                    time.sleep(0.05)
                except anthropic.APIError:
                    self.refusals["no answer"] += 1
                    time.sleep(0.05)
                time.sleep(PAUSE_SECONDS * (SKEW**number - 1))


def crash_a_fleet(sidecars: int, cap: int, kills: int, seed: int, *, shared: bool) -> Found:
    """Run it; gives what was found, after everything was checked. `shared`: two replicas over PostgreSQL."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="leasehold-"))
        database = stack.enter_context(postgres.cluster()) if shared else None
        if database is not None:
            database.start()
        return asyncio.run(_crash_a_fleet(FleetStage(Path(folder), sidecars, cap, database), cap, kills, seed))


async def _crash_a_fleet(stage: FleetStage, cap: int, kills: int, seed: int) -> Found:
    found, rng = Found(cap=cap), random.Random(seed)
    async with stage, _leases(stage) as leases:
        agents = Agents(leases, seed)
        try:
            await _quiet(stage, agents, found)
            await _silent(stage, agents, found)
            for together in victims(stage, kills, rng):
                with agents.calling():
                    await _kill(stage, together, rng, found)
            with agents.calling():
                await _used_up(stage, cap * (100 - USABLE_PERCENT) // 100)
        finally:
            agents.end()
        found.refusals = agents.refusals
        await reckon(stage, found)
    return found


@contextlib.asynccontextmanager
async def _leases(stage: FleetStage) -> AsyncIterator[list[LeaseHandle]]:
    stage.refresh_tokens()
    with contextlib.ExitStack() as stack:
        leases = []
        for name in stage.names:
            client = stack.enter_context(
                LeaseholdClient(
                    stage.sidecar_target(name), stage.layout.token(f"agent-{name}"), timeout_seconds=SECONDS_MAX
                )
            )
            leases.append(
                await asyncio.to_thread(
                    client.acquire, provider="anthropic", budget=LEASE_CAP_MICRO_USD, ttl="12h", renew=False
                )
            )
        yield leases
        for lease in leases:
            await asyncio.to_thread(lease.abandon)


async def _quiet(stage: FleetStage, agents: Agents, found: Found) -> None:
    """Nobody is killed: calls, and what crosses to the centre meanwhile."""
    await _until(lambda: all(relay.messages for relay in stage.relays.values()), "somebody is not connected")
    with agents.calling():
        await _more_calls(stage, len(book(stage)) + 1)  # streams are up, and the first slices are there
        before, relays = len(book(stage)), tuple(stage.relays.values())
        opened, messages = sum(one.calls for one in relays), sum(one.messages for one in relays)
        await _more_calls(stage, before + QUIET_CALLS)
    found.quiet_calls = len(book(stage)) - before
    found.quiet_remote_calls = sum(one.calls for one in relays) - opened
    found.quiet_messages = sum(one.messages for one in relays) - messages


async def _silent(stage: FleetStage, agents: Agents, found: Found) -> None:
    """Nothing crosses at all: what was granted is spent on, by nobody's leave."""
    relays = tuple(stage.relays.values())
    with contextlib.ExitStack() as stack:
        for relay in relays:
            stack.enter_context(relay.holding())
        passed, before = sum(one.passed for one in relays), len(book(stage))
        with agents.calling():
            await _more_calls(stage, before + SILENT_CALLS)
        found.silent_calls = len(book(stage)) - before
        found.silent_bytes = sum(one.passed for one in relays) - passed


def victims(stage: FleetStage, kills: int, rng: random.Random) -> list[tuple[str, ...]]:
    """Who is killed in each round, at times two together: a sidecar and each part of the centre, then at random."""
    parts = [(one,) for one in stage.parts]
    if POSTGRES in stage.parts:
        parts.append((POSTGRES, rng.choice(stage.centres)))
    rounds = [(rng.choice(stage.names),), *parts]
    while len(rounds) < kills:
        rounds.append((rng.choice(stage.names),) if rng.random() < SIDECARS_KILLED else rng.choice(parts))
    rounds = rounds[:kills]
    rng.shuffle(rounds)
    if (POSTGRES,) in rounds:  # first, while there is much that is granted: calls must go on without it
        rounds.remove((POSTGRES,))
        rounds.insert(0, (POSTGRES,))
    return rounds


async def _kill(stage: FleetStage, together: tuple[str, ...], rng: random.Random, found: Found) -> None:
    """Soon after something was done; they come back at once, or somewhat later, in this order."""
    if await asyncio.to_thread(_left, stage) > stage._cap // 4:
        await _more_calls(stage, len(book(stage)) + 1)
    await asyncio.sleep(rng.choice((0.02, 0.2, 0.8)) * rng.random())
    one = await asyncio.to_thread(stage.standing)
    for name in together:
        await stage.crash(name)
    calls = len(book(stage))
    await asyncio.sleep(rng.choice((0.0, 0.0, 0.5, 2.0)))
    if POSTGRES in together:
        if one is not None and _granted(one) > stage._cap // 8:
            await _more_calls(stage, calls + 1)  # of what is granted: nobody can be granted more just now
        found.calls_without_database += len(book(stage)) - calls
    stage.refresh_tokens()
    for name in together:
        await stage.start(name)
        found.kills["sidecar" if name in stage.names else name] += 1


async def _used_up(stage: FleetStage, rest: int) -> None:
    """Return once no more than this is left; as long as it grows less, it may take as long as a busy machine needs."""
    left, since = stage._cap, time.monotonic()
    while left > rest:
        await asyncio.sleep(0.1)
        now = await asyncio.to_thread(_left, stage)
        if now < left:
            left, since = now, time.monotonic()
        assert time.monotonic() < since + SECONDS_MAX, f"E8: {left} of {stage._cap} is stuck"


async def reckon(stage: FleetStage, found: Found) -> None:
    """Three witnesses: what was served, what sidecars say they charged, what the centre has in its books."""
    one = pb.FleetBudget()

    def agree() -> bool:
        nonlocal one
        standing = stage.standing()
        if standing is None:
            return False
        one = standing
        found.spent = one.spent
        found.lost = (
            one.cap
            - one.free
            - one.spent
            - sum(each.granted - each.returned - each.spent for each in one.slices if each.state == "open")
        )
        with OperatorClient(stage.collector_target) as operator:
            settled = [record.event()["details"] for record in operator.events(type="call.settled")]
        found.charged = sum(each["charged"].get("cost_micro_usd", 0) for each in settled)
        found.by_estimate = sum(each["charged"].get("cost_micro_usd", 0) for each in settled if each.get("estimated"))
        found.calls, found.served = served(stage)
        return found.spent == found.charged and found.charged >= found.served

    await _until(agree, "the books do not agree", lambda: f"{found}\n{one}")
    assert found.served <= found.charged <= found.served + found.by_estimate, found
    assert found.served <= found.cap, "E2"
    assert found.charged <= found.cap, "E2"
    assert one.free + one.outstanding + one.spent + one.written_off == one.cap, f"E1: {one}"
    open_ = [each.sidecar for each in one.slices if each.state == "open"]
    assert sorted(open_) == sorted(set(open_)), "E7"
    with OperatorClient(stage.collector_target) as operator:
        heads = await asyncio.to_thread(operator.heads)
        records = await asyncio.to_thread(lambda: list(operator.events()))
    verdict = verify(((str(record.position), record) for record in records), heads)
    assert verdict.holds, f"A2: {verdict}"


def _left(stage: FleetStage) -> int:
    """What somebody may still be granted, or has and may spend; all of it while nobody can say."""
    one = stage.standing()
    if one is None:
        return stage._cap
    return one.free + _granted(one)


def _granted(one: pb.FleetBudget) -> int:
    """What sidecars have and may spend."""
    return sum(each.granted - each.returned - each.spent for each in one.slices if each.state == "open")


async def _more_calls(stage: FleetStage, calls: int) -> None:
    await _until(lambda: len(book(stage)) >= calls, "calls do not flow")


async def _until(condition: Callable[[], bool], why: str, how: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"{why} {how()}"
        await asyncio.sleep(0.02)
