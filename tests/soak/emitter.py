"""A sidecar's emitting half in a process of its own, to be killed: `python -m tests.soak.emitter FOLDER TARGET COUNT`.

Real store, real link. It commits events in groups and writes the number of each to a file of its own only after its
commit: what stands there was acknowledged to a caller, and may not be lost.
"""

import asyncio
import os
import sys
from pathlib import Path

from tests.fakes.centre import Sidecar
from tests.fakes.rpc import SystemClock
from tests.fakes.streams import call_event

from leasehold_broker.adapters.collector_link import CollectorLink
from leasehold_broker.adapters.sqlite_state import SqliteStateStore, StoreLimits
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.recover import Recover

GROUP = 200
NUMBERS_PER_LIFE = 10**8
SPOOL_BYTES_MAX = 64 * 1024 * 1024


async def main(folder: Path, target: str, count: int) -> None:
    """Emit until `count` events are committed in all lives, then until the spool is empty; then say "done"."""
    state = SqliteStateStore(folder / "state", "sidecar-1", SystemClock(), StoreLimits(spool_bytes_max=SPOOL_BYTES_MAX))
    await Recover(Books(), state).run(SystemClock().now(), "soak")
    sidecar = Sidecar(target)
    link = CollectorLink(sidecar.settings, state, sidecar.sink, lambda: (), sidecar.budget_tie, sidecar.clock)
    task = asyncio.create_task(link.run())
    print("ready", flush=True)  # noqa: T201 - the parent waits for it
    known = folder / "committed"
    ranges = [line.split() for line in known.read_text().splitlines()] if known.exists() else []
    done = sum(int(last) - int(first) + 1 for first, last in ranges)
    # No life repeats a number of another, also not one that was committed and never written down.
    with (folder / "lives").open("a+") as lives:
        lives.write("life\n")
        lives.flush()
        lives.seek(0)
        number = len(lives.readlines()) * NUMBERS_PER_LIFE
    with known.open("a") as file:
        while done < count:
            wanted = range(number, number + GROUP)
            number += GROUP
            try:
                await asyncio.gather(*(state.commit([call_event(one)]) for one in wanted))
            except Refusal:
                await asyncio.sleep(0.02)  # a full spool: what of the group was committed was promised to nobody
                continue
            file.write(f"{wanted.start} {wanted.stop - 1}\n")
            file.flush()
            done += GROUP
    while await state.pending_after(0, 1):  # noqa: ASYNC110 - once, at the end
        await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await state.close()
    print("done", flush=True)  # noqa: T201 - the parent waits for it


if __name__ == "__main__":
    os.umask(0o077)
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
