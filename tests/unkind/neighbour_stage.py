"""A stage below a folder, run under the uid of this process: `python -m tests.unkind.neighbour_stage FOLDER GID`.

Prints one line of JSON that tells where everything is and which keys were planted; takes it down when its input ends.
"""

import asyncio
import json
import sys
from pathlib import Path

from leasehold_broker.demo.stage import Stage

SIDECAR = "sidecar-a"


class NodeStage(Stage):
    """One sidecar whose socket the processes of one group may reach, as on a node that agents share."""

    def __init__(self, root, group):
        """Prepare below `root`."""
        super().__init__(root, sidecars=(SIDECAR,))
        self._group = group

    async def start(self, name):
        """Let the group reach the sidecar's socket."""
        if name == SIDECAR:
            config = self.layout.config(name)
            config.write_text(config.read_text().replace("[grpc]\n", f"[grpc]\nsocket_gid = {self._group}\n", 1))
            for folder in (self.layout.root, self.layout.root / "run"):
                folder.chmod(0o711)
        await super().start(name)


async def main(root, group):
    """Run until the input ends."""
    async with NodeStage(root, group) as stage:
        where = {
            "pid": stage.serving(SIDECAR).process.pid,
            "collector_pid": stage.serving("collector").process.pid,
            "socket": str(stage.layout.socket(SIDECAR)),
            "jwt": stage.workload("agent", "agents/research/lead", team="research").read_text(),
            "keys": list(stage.stand_in_keys.values()),
            "master_key": stage.layout.master_key.read_text().strip(),
        }
        sys.stdout.write(json.dumps(where) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
