"""A replica in a process of its own, to be killed.

    python -m tests.fakes.replica_process FOLDER NAME EPOCH URL SCHEMA [NATS ...]

The folder is of the whole centre: each replica has its own in it, and they share the key there.
"""

import asyncio
import contextlib
import sys
from pathlib import Path

from tests.fakes.replicas import Replica

from leasehold_broker.adapters.postgres_collector import PostgresAt
from leasehold_broker.config.collector_nats import NatsBus
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.flows import publish_checkpoint

PARTITION_RECORDS = 100_000
READ_BACK_RECORDS_MAX = 20
"""So that what is killed signs from its memory, as it does when much comes."""


async def main() -> None:
    """Serve until killed; says "ready" once. A database that is away is waited for."""
    folder, name, epoch, url, schema, *servers = sys.argv[1:]
    publish_checkpoint.READ_BACK_RECORDS_MAX = READ_BACK_RECORDS_MAX
    bus = NatsBus(tuple(servers), "soak", None, None, None, 1 << 30, len(servers)) if servers else None
    at = PostgresAt(url, schema, partition_records=PARTITION_RECORDS)
    for attempt in range(10_000):
        # An epoch of its own for each attempt: one that broke off may have written.
        key = Path(folder) / "shared.key"
        replica = Replica(Path(folder) / name, at, name, f"{epoch}.{attempt}", key=key, bus=bus)
        try:
            await replica.__aenter__()
        except Refusal:
            with contextlib.suppress(Refusal):
                await replica.__aexit__()
            await asyncio.sleep(0.2)
            continue
        print("ready", flush=True)  # noqa: T201 - the parent waits for it
        while not replica.failures:  # noqa: ASYNC110 - it is about to be killed
            await asyncio.sleep(0.1)
        raise SystemExit(replica.failures[0])


if __name__ == "__main__":
    asyncio.run(main())
