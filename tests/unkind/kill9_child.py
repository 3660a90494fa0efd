"""The process that gets killed: a sidecar's heart under load, and a provider that notes every call before serving it.

Run as: python -m tests.unkind.kill9_child <state directory> <file of served calls>. Says "ready" once calls flow.
With "prepare" as a third word it only makes the leases, with "one" it carries one call of each, with "crowd" a
few of each worker; then it closes the store and ends.
"""

import asyncio
import itertools
import os
import random
import sys
from pathlib import Path

from tests.fakes.core import PEER, Core, caps, identity, plan, request, used

from leasehold_broker.adapters.sqlite_state import SqliteStateStore, StoreLimits
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.adapters.system_entropy import SystemEntropy
from leasehold_broker.domain.reasons import Refusal

WORKERS = 24
CROWD_ROUNDS = 4
CAP = 200_000_000


async def calls(core: Core, lease, served: int, rng: random.Random, rounds: int | None = None) -> None:
    """Admit, note, serve, settle, so often or for ever."""
    for _ in itertools.repeat(None) if rounds is None else range(rounds):
        try:
            admitted = await core.calls.admit(lease, plan(100, rng.choice((10, 100))), "r", lambda *_: None)
        except Refusal:
            await asyncio.sleep(0)
            continue
        hold = core.books.ledger.hold(admitted.call_id)
        output = rng.randint(0, hold.amounts.output_tokens)
        os.write(served, f"{admitted.call_id} {lease.name} {100 + output * 5}\n".encode())
        if rng.random() < 0.3:
            await asyncio.sleep(rng.random() * 0.01)
        await core.calls.settle(admitted.call_id, used(100, output))


async def one_call(core: Core, lease, served: int) -> None:
    """Admit, note, serve, settle, once."""
    admitted = await core.calls.admit(lease, plan(100, 100), "r", lambda *_: None)
    os.write(served, f"{admitted.call_id} {lease.name} 350\n".encode())
    await core.calls.settle(admitted.call_id, used(100, 50))


async def crowd(core: Core, root, child, served: int, rounds: int | None) -> None:
    """Many workers at once, a third of them under the child."""
    async with asyncio.TaskGroup() as group:
        for worker in range(WORKERS):
            rng = random.Random(os.urandom(8))
            group.create_task(calls(core, child if worker % 3 == 0 else root, served, rng, rounds))
        os.write(1, b"ready\n")


async def main(directory: Path, served_file: Path, mode: str) -> None:
    """Recover, then load."""
    clock = SystemClock()
    store = SqliteStateStore(directory, "kill9", clock, StoreLimits())
    core = await Core(store, clock, entropy=SystemEntropy()).recover()
    served = os.open(served_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    if mode == "one":
        for lease in sorted(core.books.leases.values(), key=lambda lease: lease.depth):
            await one_call(core, lease, served)
        await store.close()
        return
    if mode == "crowd":
        root, child = sorted(core.books.leases.values(), key=lambda lease: lease.depth)
        await crowd(core, root, child, served, CROWD_ROUNDS)
        await store.close()
        return
    root = (
        await core.acquire.run(identity(), PEER, request(caps(cost_micro_usd=CAP)), "one", validate_only=False)
    ).lease
    narrow = request(caps(cost_micro_usd=CAP // 4), scopes=())
    child = (await core.delegate.run(identity(), PEER, root.name, narrow, "two", None)).lease
    if mode == "prepare":
        await store.close()
        return
    await crowd(core, root, child, served, None)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), "".join(sys.argv[3:])))
