"""What a collector pays when its whole fleet comes back at once; `make bench-reconnect`.

Method: the stage of `bench-revocation`, without agents. The collector is killed and started again on the same port,
with its certificates and its store, while every link goes on as it does. From its start until it counts all of them as
connected: seconds; and until five seconds later, the CPU time of all its threads, its own start and the counting
included. What a start costs with nobody there is measured first, and taken off. All links have one address, as behind a
gateway: what the door allows one address is part of what is measured.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from tests.bench.fleet.stage import FleetStage
from tests.bench.revocation import noted_failures, say, scheduled

from leasehold.operators import OperatorClient

LOOK_SECONDS = 0.25
BACK_SECONDS = 240.0
DOWN_SECONDS = 2.0
SETTLE_SECONDS = 5.0
"""Then the events of it are shipped too."""


async def measure(options: argparse.Namespace, root: Path) -> None:
    """Set the stage, take the collector away and back, report."""
    stage = FleetStage(root, links=options.links, processes=options.processes, sidecars=0)
    async with stage:
        alone = await back(stage, 0)
        say(f"a start with nobody there: {alone[1]:.2f} s of CPU")
        began = time.monotonic()
        await stage.fill()
        say(f"{len(stage.names)} sidecars connected in {time.monotonic() - began:.1f} s")
        for _ in range(options.rounds):
            seconds, cpu = await back(stage, len(stage.names))
            each = (cpu - alone[1]) / len(stage.names) * 1000
            say(f"all back after {seconds:.1f} s; {cpu:.2f} s of the collector's CPU, {each:.1f} ms for each sidecar")
        say(f"failures of links: {noted_failures(await stage.noted())}")


async def back(stage: FleetStage, sidecars: int) -> tuple[float, float]:
    """Kill the collector, start it after a while; seconds and CPU seconds until so many are connected."""
    await stage.crash("collector")
    await asyncio.sleep(DOWN_SECONDS)
    began = time.monotonic()
    await stage.start_again()
    with stage.responder() as operator:
        await asyncio.to_thread(_until_connected, operator, sidecars)
    seconds = time.monotonic() - began
    await asyncio.sleep(SETTLE_SECONDS)
    return seconds, scheduled(stage.pids("collector")[0])[0] / 1e9


def _until_connected(operator: OperatorClient, sidecars: int) -> None:
    deadline = time.monotonic() + BACK_SECONDS
    while sum(one.connected for one in operator.sidecars()) < sidecars:
        if time.monotonic() > deadline:
            message = f"not all of {sidecars} sidecars are back after {BACK_SECONDS:g} s"
            raise TimeoutError(message)
        time.sleep(LOOK_SECONDS)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", type=int, default=1000, help="linked sidecars")
    parser.add_argument("--processes", type=int, default=4, help="that hold the links")
    parser.add_argument("--rounds", type=int, default=3, help="how often the collector is killed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leasehold-bench-") as folder:
        uvloop.run(measure(options, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
