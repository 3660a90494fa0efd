"""The world of the benchmarks: a real collector and sidecar as processes, and a fast origin in place of the stand-in.

Owns who runs where: the measured sidecar alone on one core, everything else (load, origin, collector) on the others.
"""

import asyncio
import os
import sys
from pathlib import Path

from tests.bench.origin import MODEL

from leasehold_broker.demo import files
from leasehold_broker.demo.stage import Stage

SIDECAR = "sidecar-a"
SUBJECT = "agents/research/bench"
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchStage(Stage):
    """One sidecar whose provider is as fast as this machine allows, and whose grant has room for any load."""

    def __init__(self, root: Path) -> None:
        """Prepare below `root`."""
        super().__init__(root, sidecars=(SIDECAR,))

    def policy_text(self) -> str:
        """One grant without small limits, but with every kind of budget that a call draws on."""
        return f"""version = 1

[[grants]]
name = "bench"
issuer = "{self.issuer.url}"
subjects = ["agents/*"]
environment = "{files.ENVIRONMENT}"
keys = ["anthropic-demo"]
ttl_seconds_max = 3600
life_seconds_max = 7200
leases_max = 100000

[[grants.scopes]]
provider = "anthropic"
models = ["{MODEL}"]

[grants.caps]
cost_micro_usd = 100000000000000

[[grants.windows]]
period = "day"
cost_micro_usd = 100000000000000
"""

    async def start_provider(self) -> str:
        """The fast origin, in its own process."""
        running = await self.processes.start("origin", [sys.executable, "-m", "tests.bench.origin"], read_output=True)
        if running.process.stdout is None:
            raise RuntimeError("the origin has no output")
        port = int(await asyncio.wait_for(running.process.stdout.readline(), 20))
        return f"http://127.0.0.1:{port}"

    @property
    def sidecar_pid(self) -> int:
        """Of the measured process."""
        return self.serving(SIDECAR).process.pid

    def pin(self) -> str:
        """Give the sidecar a core of its own, when there are two; says what was done."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            return "one core for everything"
        own, others = {cores[0]}, set(cores[1:])
        for task in Path(f"/proc/{self.sidecar_pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), own)
        for pid in (os.getpid(), *(one for one in self.processes.pids() if one != self.sidecar_pid)):
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), others)
        return f"sidecar on core {cores[0]}, everything else on {sorted(others)}"

    def cpu_seconds(self) -> float:
        """User and system time of the sidecar so far."""
        fields = Path(f"/proc/{self.sidecar_pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_mb(self) -> float:
        """Resident memory of the sidecar, in MB (10^6 bytes)."""
        for line in Path(f"/proc/{self.sidecar_pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise RuntimeError("the kernel does not tell the resident size")
