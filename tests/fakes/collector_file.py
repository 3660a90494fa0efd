"""The file of a collector of one sidecar whose key set is on disk, with its own user as responder."""

import os
from pathlib import Path

TEXT = """
[collector]
name = "{name}"
state_dir = "{state}"

[grpc]
socket = "{socket}"

[[issuers]]
name = "demo"
kind = "oidc"
issuer = "https://issuer.example"
audience = "leasehold-collector"
algorithms = ["ES256"]
replay = "off"
jwks_file = "{folder}/jwks.json"

[[sidecars]]
name = "sidecar-1"
issuer = "https://issuer.example"
subject = "sidecar-1"

[[operators]]
role = "responder"
uids = [{uid}]

[metrics]
address = ""
"""


def lay_down(folder: Path, name: str, state: Path, socket: Path, more: str = "") -> Path:
    """Write the configuration, for its owner alone, and the key set beside it; `more`: tables of the test."""
    (folder / "jwks.json").write_text('{"keys": []}')
    config = folder / "collector.toml"
    config.touch(0o600)
    config.write_text(TEXT.format(name=name, state=state, socket=socket, folder=folder, uid=os.getuid()) + more)
    return config
