"""A sidecar that knows an Envoy of another user: `python -m tests.unkind.envoy_stage FOLDER GID ENVOY_UID`.

Prints one line of JSON that tells where everything is, and Envoy's configuration; takes it down when its input ends.
"""

import asyncio
import json
import sys
from pathlib import Path

from tests.fakes.envoy import GATEWAY, RESEARCHER, EnvoyStage


class NodeStage(EnvoyStage):
    """One sidecar whose two sockets the processes of one group may reach."""

    def __init__(self, root, group, envoy_uid):
        """Prepare below `root`."""
        super().__init__(root, sidecars=(GATEWAY,), envoy_uid=envoy_uid)
        self._group = group

    def sidecar_text(self, name, origins):
        """With the group, and room for Envoy to get to the sockets."""
        for folder in (self.layout.root, self.layout.root / "run"):
            folder.chmod(0o711)
        text = super().sidecar_text(name, origins)
        for table in ("[grpc]\n", "[egress]\n"):
            text = text.replace(table, f"{table}socket_gid = {self._group}\n", 1)
        return text


async def main(root, group, envoy_uid):
    """Run until the input ends."""
    async with NodeStage(root, group, envoy_uid) as stage:
        envoy = stage.gateway()
        shown = stage.files_of(RESEARCHER)
        where = {
            "config": envoy.config.read_text(),
            "port": stage.ports[GATEWAY],
            "tls": str(stage.tls),
            "shown": [str(shown.ca_file), str(shown.certificate_file), str(shown.key_file)],
            "digest": stage.certificate(RESEARCHER).digest.hex(),
            "socket": str(stage.layout.socket(GATEWAY)),
            "egress": str(stage.egress_socket(GATEWAY)),
            "other_jwt": stage.workload("other", "agents/research/other", team="research").read_text(),
            "jwt": stage.workload("agent", "agents/research/lead", team="research").read_text(),
        }
        sys.stdout.write(json.dumps(where) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
