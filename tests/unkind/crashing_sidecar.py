"""A whole sidecar under load, killed again and again: real doors, real store, official SDK, the stand-in as witness.

After each kill it starts on what is left. Its ledger is then held against the book of the stand-in: nothing that was
served may be missing, and no more may be charged than was served and what was open at the kills.
"""

import asyncio
import functools
import random
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anthropic

from leasehold import LeaseholdClient
from leasehold.audit import verify
from leasehold.http import anthropic_kwargs
from leasehold.lease import LeaseHandle
from leasehold.operators import OperatorClient
from leasehold_broker.demo import accounts
from leasehold_broker.demo.stage import Stage

SIDECAR = "sidecar-a"
WORKERS = 6
CAP_MICRO_USD = 50_000_000
SECONDS_MAX = 60


@dataclass
class Crashes:
    """What the kills did; money in micro-USD."""

    kills: int = 0
    calls: int = 0
    open_at_a_kill: int = 0
    served: int = 0
    settled: int = 0
    charged_by_estimate: int = 0
    longest_start_seconds: float = 0.0


class CrashStage(Stage):
    """One sidecar, whose egress stays on one port over its lives."""

    def policy_text(self) -> str:
        """The demo's, with room for many lives."""
        text = super().policy_text()
        for name in ("ttl_seconds_max", "life_seconds_max", "cost_micro_usd"):
            value = 86_400 if name.endswith("seconds_max") else CAP_MICRO_USD
            text = re.sub(rf"{name} = \d+", f"{name} = {value}", text)
        return text

    async def start(self, name: str) -> None:
        """Fix the port before the first start."""
        config = self.layout.config(name)
        if name == SIDECAR and "127.0.0.1:0" in config.read_text():
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            text = config.read_text().replace('address = "127.0.0.1:0"', f'address = "127.0.0.1:{port}"', 1)
            config.write_text(text)
        await super().start(name)


class Load:
    """Agents that call without a pause while they may."""

    def __init__(self, lease: LeaseHandle, seed: int) -> None:
        """Start the threads; they wait."""
        self._lease = lease
        self._seed = seed
        self._go, self._over = threading.Event(), False
        self._threads = [threading.Thread(target=self._call, args=(n,), name=f"agent {n}") for n in range(WORKERS)]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def running(self) -> Iterator[None]:
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

    def _call(self, number: int) -> None:
        rng = random.Random(f"{self._seed}/{number}")
        with anthropic.Anthropic(**anthropic_kwargs(self._lease), max_retries=0, timeout=10) as claude:
            while self._go.wait() and not self._over:
                words = rng.choice((3, 20, 200))
                ask = {"max_tokens": 300, "messages": [{"role": "user", "content": f"Speak in {words} words."}]}
                try:
                    claude.messages.create(model="claude-haiku-5-5", **ask)
                except anthropic.APIError:
                    time.sleep(0.01)


def kill_under_load(kills: int, seed: int, say: Callable[[str], None] = lambda _: None) -> Crashes:
    """Kill a sidecar so often; gives what was found, after everything was checked."""
    with tempfile.TemporaryDirectory(prefix="leasehold-") as folder:
        return asyncio.run(_kill_under_load(Path(folder), kills, seed, say))


async def _kill_under_load(root: Path, kills: int, seed: int, say: Callable[[str], None]) -> Crashes:
    rng, found = random.Random(seed), Crashes()
    async with CrashStage(root, chunk_ms=1, sidecars=(SIDECAR,)) as stage:
        token = _fresh_token(stage)
        client = LeaseholdClient(stage.sidecar_target(SIDECAR), token, timeout_seconds=SECONDS_MAX)
        lease = await asyncio.to_thread(
            lambda: client.acquire(provider="anthropic", budget=CAP_MICRO_USD, ttl="12h", renew=False)
        )
        load = Load(lease, seed)
        try:
            for kill in range(1, kills + 1):
                with load.running():
                    await _one_more_call(stage, found.calls)
                    await asyncio.sleep(rng.choice((0.02, 0.2, 0.8)) * rng.random())
                    await stage.crash(SIDECAR)
                await stage.start(SIDECAR)
                _fresh_token(stage)
                found.longest_start_seconds = max(found.longest_start_seconds, stage.started_seconds[SIDECAR])
                await _check(stage, lease, found)
                found.kills = kill
                if kill % 20 == 0:
                    say(f"{kill} kills: {found}")
        finally:
            load.end()
        await _reckon(stage, lease, found)
        await asyncio.to_thread(lease.abandon)
        await asyncio.to_thread(client.close)
    return found


def _fresh_token(stage: Stage) -> Path:
    """Into the same file: tokens live for minutes, the run does for longer."""
    return stage.workload("crashing", "agents/research/crashing", team="research")


async def _one_more_call(stage: Stage, calls: int) -> None:
    """Wait until calls flow in this life: a kill of an idle process would show nothing."""
    async with asyncio.timeout(SECONDS_MAX):
        while len(book(stage)) <= calls:  # noqa: ASYNC110 - the book is a file of another process
            await asyncio.sleep(0.005)


async def _check(stage: Stage, lease: LeaseHandle, found: Crashes) -> None:
    """Nothing is held once it serves again, nothing that was served is missing, and the cap holds."""
    row = next(usage for usage in await asyncio.to_thread(lease.usage) if usage.budget == "lease")
    found.calls, found.served = served(stage)
    found.settled = row.settled
    assert row.held == 0, "B9: a hold outlived its process"
    assert row.settled >= found.served, f"spent unseen: {found.served} served, {row.settled} settled"
    assert row.settled <= row.cap, "B1"


async def _reckon(stage: Stage, lease: LeaseHandle, found: Crashes) -> None:
    """What is charged beyond what was served is what was open at a kill; the log is whole and says the same."""
    with OperatorClient(stage.collector_target) as operator:
        for _ in range(SECONDS_MAX * 10):
            events = [
                record.event()["details"]
                for record in await asyncio.to_thread(
                    lambda: list(operator.events(type="call.settled", lease=lease.name))
                )
            ]
            found.charged_by_estimate = sum(
                one["charged"].get("cost_micro_usd", 0) for one in events if one.get("estimated")
            )
            found.open_at_a_kill = sum(bool(one.get("estimated")) for one in events)
            found.calls, found.served = served(stage)
            charged = sum(one["charged"].get("cost_micro_usd", 0) for one in events)
            if charged == found.settled and found.settled <= found.served + found.charged_by_estimate:
                break
            await asyncio.sleep(0.1)
        heads = await asyncio.to_thread(operator.heads)  # first: what arrives while we read comes after them
        records = await asyncio.to_thread(lambda: list(operator.events()))
    assert charged == found.settled, "A7: the log says another sum than the ledger"
    assert found.served <= found.settled <= found.served + found.charged_by_estimate, "charged what never was"
    verdict = verify(((str(record.position), record) for record in records), heads)
    assert verdict.holds, f"A2: {verdict}"


def book(stage: Stage) -> list[dict]:
    """The stand-in's, of calls that cost."""
    return [each for each in accounts.read_book(stage.layout.journal) if each["operation"] not in accounts.FREE]


def served(stage: Stage) -> tuple[int, int]:
    """How many calls the stand-in served, and what they cost in micro-USD."""
    calls = book(stage)
    return len(calls), sum(
        _cost(each["model"], tuple(each["tokens"][unit] for unit in accounts.UNITS)) for each in calls
    )


@functools.cache
def _cost(model: str, tokens: tuple[int, ...]) -> int:
    units = dict(zip(accounts.UNITS, tokens, strict=True))
    return accounts.cost_of({"provider": "anthropic", "model": model, "tokens": units})
