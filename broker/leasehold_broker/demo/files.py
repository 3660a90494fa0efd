"""The demo's configuration: real files for the real loaders. `deploy/config` explains every line of such files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SIDECAR_AUDIENCE = "leasehold"
COLLECTOR_AUDIENCE = "leasehold-collector"
ENVIRONMENT = "demo"
ANTHROPIC_MODEL = "claude-haiku-5-5"
OPENAI_MODEL = "gpt-6-luna"
EMBEDDING_MODEL = "text-embedding-3-small"
GEMINI_MODEL = "gemini-3.5-flash-lite"
GEMINI_EMBEDDING_MODEL = "gemini-embedding-001"
MODELS: Mapping[str, tuple[str, ...]] = {
    "anthropic": (ANTHROPIC_MODEL,),
    "openai": (OPENAI_MODEL, EMBEDDING_MODEL),
    "gemini": (GEMINI_MODEL, GEMINI_EMBEDDING_MODEL),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of the demo lies, below one private folder."""

    root: Path

    def make(self) -> None:
        """Create the folders, mode 700."""
        for folder in (self.root, self.keys.parent, self.tokens, self.logs, self.root / "run", self.root / "state"):
            folder.mkdir(mode=0o700, exist_ok=True)

    @property
    def keys(self) -> Path:
        """The encrypted key store."""
        return self.root / "keys" / "keys.json"

    @property
    def master_key(self) -> Path:
        """The key store's master key."""
        return self.root / "keys" / "master.key"

    @property
    def tokens(self) -> Path:
        """Workload tokens, one file each."""
        return self.root / "tokens"

    @property
    def logs(self) -> Path:
        """Logs of the processes."""
        return self.root / "logs"

    @property
    def journal(self) -> Path:
        """The stand-in's book."""
        return self.root / "stand-in-book.jsonl"

    @property
    def policy(self) -> Path:
        """The policy file."""
        return self.root / "policy.toml"

    def config(self, name: str) -> Path:
        """The configuration of one process."""
        return self.root / f"{name}.toml"

    def socket(self, name: str) -> Path:
        """The gRPC socket of one process, in a folder of its own."""
        return self.root / "run" / name / "grpc.sock"

    def token(self, name: str) -> Path:
        """A workload's token."""
        return self.tokens / f"{name}.jwt"


def write(path: Path, text: str) -> Path:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path


def policy(issuer: str) -> str:
    """Two grants: researchers reach three providers and may delegate, jobs reach one."""
    scopes = "".join(
        f"""
[[grants.scopes]]
provider = "{provider}"
models = {_list(models)}
max_output_tokens_per_request = 8192
"""
        for provider, models in MODELS.items()
    )
    keys = _list([f"{provider}-demo" for provider in MODELS])
    return f"""version = 1

[[grants]]
name = "researchers"
issuer = "{issuer}"
subjects = ["agents/research/*"]
environment = "{ENVIRONMENT}"
keys = {keys}
ttl_seconds_max = 600
life_seconds_max = 3600
delegation_depth_max = 1
{scopes}
[grants.caps]
cost_micro_usd = 100000

[[grants.windows]]
period = "day"
cost_micro_usd = 500000

[[grants]]
name = "jobs"
issuer = "{issuer}"
subjects = ["jobs/*"]
environment = "{ENVIRONMENT}"
keys = ["anthropic-demo"]
ttl_seconds_max = 600
life_seconds_max = 3600

[[grants.scopes]]
provider = "anthropic"
models = ["{ANTHROPIC_MODEL}"]

[grants.caps]
cost_micro_usd = 50000
"""


def collector(
    layout: Layout, issuer: str, jwks_url: str, sidecars: Sequence[str], uid: int, authority_seconds: int
) -> str:
    """The centre: this user is the responder; a sidecar goes on for so long without hearing from it."""
    listed = "".join(
        f"""
[[sidecars]]
name = "{name}"
issuer = "{issuer}"
subject = "sidecars/{name}"
"""
        for name in sidecars
    )
    return f"""[collector]
name = "collector"
state_dir = "{layout.root}/state/collector"
authority_seconds = {authority_seconds}

[store]
disk_reserve_mib = 8

[grpc]
socket = "{layout.socket("collector")}"
{_issuer(issuer, jwks_url, COLLECTOR_AUDIENCE)}{listed}
[[operators]]
role = "responder"
uids = [{uid}]
[[operators]]
role = "treasurer"
uids = [{uid}]
"""


def sidecar(layout: Layout, name: str, issuer: str, jwks_url: str, origins: Mapping[str, str]) -> str:
    """A sidecar with free ports; `origins` names the providers that the stand-in serves."""
    providers = "".join(
        f"""
[providers.{provider}]
origin = "{origin}"
allow_private = true
"""
        for provider, origin in origins.items()
    )
    return f"""[sidecar]
name = "{name}"
state_dir = "{layout.root}/state/{name}"
drain_seconds = 2.0

[grpc]
socket = "{layout.socket(name)}"

[egress]
address = "127.0.0.1:0"

[policy]
file = "{layout.policy}"

[keys]
file = "{layout.keys}"
master_key_file = "{layout.master_key}"
{_issuer(issuer, jwks_url, SIDECAR_AUDIENCE)}{providers}
[collector]
target = "unix://{layout.socket("collector")}"
token_file = "{layout.token(name)}"
"""


def _issuer(issuer: str, jwks_url: str, audience: str) -> str:
    return f"""
[[issuers]]
name = "demo"
kind = "oidc"
issuer = "{issuer}"
audience = "{audience}"
algorithms = ["ES256"]
replay = "bind-first-peer"
jwks_url = "{jwks_url}"
labels = {{ environment = {{ path = ["environment"] }}, team = {{ path = ["team"] }} }}
"""


def _list(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
