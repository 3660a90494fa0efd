"""The stage of the fleet: a collector behind mutual TLS, processes of links, whole sidecars, their agents, an origin.

Every sidecar, linked or whole, is known by the SPIFFE ID of its own certificate. Owns starting and stopping.
"""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.bench.origin import MODEL
from tests.fakes.certificates import Authority

from leasehold import TlsFiles
from leasehold.operators import OperatorClient
from leasehold_broker.demo import files
from leasehold_broker.demo.processes import DemoFailedError, Running
from leasehold_broker.demo.stage import Stage, broker

READY_SECONDS = 300.0
TEAMS = ("red", "blue")
RESPONDERS = "responders"
AGENTS_EACH = 4
SHIPPED_EACH = 100_000

POLICY = """version = 1

[[grants]]
name = "bench"
issuer = "{issuer}"
subjects = ["agents/*"]
environment = "demo"
keys = ["anthropic-demo"]
ttl_seconds_max = 3600
life_seconds_max = 7200
leases_max = 100000

[[grants.scopes]]
provider = "anthropic"
models = ["{model}"]

[grants.caps]
cost_micro_usd = 100000000000000
"""
COLLECTOR = """[collector]
name = "collector"
state_dir = "{root}/state/collector"
authority_seconds = {authority_seconds}

[grpc]
socket = ""
address = "{listen}:{port}"
connections_max = 5000
connections_per_peer_max = 5000
[grpc.tls]
certificate = "{certificates}/collector.pem"
private_key = "{certificates}/collector.key"
client_ca = "{certificates}/ca.pem"

[[issuers]]
name = "demo"
kind = "oidc"
issuer = "{issuer}"
audience = "leasehold-collector"
algorithms = ["ES256"]
replay = "off"
jwks_file = "{root}/jwks.json"

[[operators]]
role = "responder"
issuer = "{issuer}"
claim = "groups"
values = ["{responders}"]
"""
RULE = """
[[sidecars]]
name = "{name}"
spiffe_id = "{spiffe_id}"
"""


def spiffe_id(name: str) -> str:
    """Of a sidecar."""
    return f"spiffe://bench.example/sidecars/{name}"


class FleetStage(Stage):
    """A context manager, as `Stage`."""

    listen = "127.0.0.1"
    """Where the collector listens."""
    centre_host = "localhost"
    """Where sidecars find it: a name that is in its certificate."""
    operators_host = "localhost"
    within: tuple[str, ...] = ()
    """What the collector's command is put behind."""

    def __init__(
        self,
        root: Path,
        *,
        links: int,
        processes: int,
        sidecars: int,
        authority_seconds: int = 60,
        stuck: int = 0,
        shippers: int = 0,
    ) -> None:
        """So many links in so many processes, beside so many whole sidecars.

        Args:
            root: for all files.
            links: of sidecars.
            processes: that hold the links.
            sidecars: whole ones.
            authority_seconds: as configured.
            stuck: links more, to be stopped.
            shippers: sidecars more that do nothing but ship events, once they are told to.
        """
        self.whole = tuple(f"sidecar-{number}" for number in range(sidecars))
        super().__init__(root, sidecars=self.whole, authority_seconds=authority_seconds)
        self._shares = [
            [f"link-{number}" for number in range(links) if number % processes == share] for share in range(processes)
        ]
        self.stuck = tuple(f"stuck-{number}" for number in range(stuck))
        if stuck:
            self._shares.append(list(self.stuck))
        self.shippers = tuple(f"shipper-{number}" for number in range(shippers))
        self._authority = Authority()
        self._certificates = root / "certificates"
        self._helpers: dict[str, Running] = {}
        self._agents: list[tuple[str, str]] = []
        self._port = 0

    def subject(self, agent: int) -> str:
        """Who an agent is; its name says where it is."""
        return f"agents/{self.sidecar_of(agent)}/{agent}"

    def team(self, agent: int) -> str:
        """A verified label of it."""
        return TEAMS[agent % len(TEAMS)]

    def sidecar_of(self, agent: int) -> str:
        """Where it is."""
        return self.whole[agent // AGENTS_EACH]

    @property
    def agents(self) -> range:
        """Their numbers."""
        return range(AGENTS_EACH * len(self.whole))

    @property
    def names(self) -> list[str]:
        """Every sidecar that the collector knows."""
        return [*(name for share in self._shares for name in share), *self.whole, *self.shippers]

    def responder(self) -> OperatorClient:
        """Who revokes: over the same door, with a token and a certificate."""
        token = self.issuer.project(
            self.layout.token("responder"), "alice", files.COLLECTOR_AUDIENCE, {"groups": [RESPONDERS]}
        )
        folder = self._certificates
        tls = TlsFiles(folder / "ca.pem", folder / "responder.pem", folder / "responder.key", "localhost")
        return OperatorClient(f"{self.operators_host}:{self._port}", token, tls=tls, timeout_seconds=60.0)

    def pids(self, prefix: str) -> list[int]:
        """Of the processes whose name begins so."""
        running = {**self._helpers, **{name: self.serving(name) for name in ("collector", *self.whole)}}
        return [one.process.pid for name, one in running.items() if name.startswith(prefix)]

    def stop_stuck(self) -> None:
        """Their process runs no more: it neither reads nor answers, and its connections stay."""
        self._signal_stuck(signal.SIGSTOP)

    def _signal_stuck(self, number: signal.Signals) -> None:
        if self.stuck:
            self._helpers[f"links-{len(self._shares) - 1}"].process.send_signal(number)

    def policy_text(self) -> str:
        """One grant, with room for everything."""
        return POLICY.format(issuer=self.issuer.url, model=MODEL)

    def sidecar_text(self, name: str, origins: Mapping[str, str]) -> str:
        """As everywhere, but its centre is reached over TLS, with its own certificate."""
        folder = self._certificates
        centre = f"""[collector]
target = "{self.centre_host}:{self._port}"
ca_file = "{folder}/ca.pem"
certificate_file = "{folder}/{name}.pem"
private_key_file = "{folder}/{name}.key"
"""
        return super().sidecar_text(name, origins).partition("[collector]")[0] + centre

    async def start_provider(self) -> str:
        """The noting origin."""
        running = await self._helper("origin", "tests.bench.fleet.origin", str(self.layout.root / "origin.json"))
        return f"http://127.0.0.1:{int(await self._line(running))}"

    async def start(self, name: str) -> None:
        """Start the collector or a sidecar, and wait until it serves."""
        if name != "collector":
            return await super().start(name)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self._issue()
        text = COLLECTOR.format(
            root=self.layout.root, certificates=self._certificates, listen=self.listen, port=self._port,
            issuer=self.issuer.url, authority_seconds=self._authority_seconds, responders=RESPONDERS,
        )  # fmt: skip
        async with aiohttp.ClientSession() as session, session.get(self.issuer.jwks_url) as answer:
            files.write(self.layout.root / "jwks.json", await answer.text())
        rules = (RULE.format(name=name, spiffe_id=spiffe_id(name)) for name in self.names)
        files.write(self.layout.config(name), text + "".join(rules))
        await self.start_again()
        return None

    async def start_again(self) -> None:
        """Start the collector as it was configured: on its port, with its store."""
        command = [*self.within, *broker("collector", "--config", str(self.layout.config("collector")))]
        running = await self.processes.start("collector", command)
        self._serving["collector"] = running
        await self._until_healthy(running)

    async def fill(self) -> None:
        """Connect the links, and let the agents work."""
        plans = [{"names": share, "target": f"127.0.0.1:{self._port}"} for share in self._shares]
        starting = []
        for number, plan in enumerate(plans):
            plan |= {"certificates": str(self._certificates), "out": str(self._out(f"links-{number}"))}
            starting.append(self._planned(f"links-{number}", "tests.bench.fleet.links", plan))
        await asyncio.gather(*starting)
        agents = []
        for number in self.agents:
            token = self.workload(f"agent-{number}", self.subject(number), team=self.team(number))
            agents.append((self.sidecar_target(self.sidecar_of(number)), str(token)))
        plan = {"agents": agents, "out": str(self._out("agents"))}
        await self._planned("agents", "tests.bench.fleet.agents", plan)
        if self.shippers:
            plan = {"names": self.shippers, "target": plans[0]["target"], "events": SHIPPED_EACH}
            plan |= {"certificates": str(self._certificates), "out": str(self._out("shippers"))}
            await self._planned("shippers", "tests.bench.fleet.flood", plan)

    def ship(self) -> None:
        """Let the shippers ship, until the end."""
        running = self._helpers["shippers"].process
        if running.stdin is not None:
            running.stdin.write(b"\n")

    async def noted(self) -> dict[str, object]:
        """End the helpers, and read what each noted, by its name."""
        self._signal_stuck(signal.SIGCONT)
        for running in self._helpers.values():
            if running.process.stdin is None:
                raise DemoFailedError("a helper has no input")
            running.process.stdin.close()
            await asyncio.wait_for(running.process.wait(), READY_SECONDS)
        return {name: json.loads(self._out(name).read_text()) for name in self._helpers}

    def _out(self, name: str) -> Path:
        return self.layout.root / f"{name}.json"

    async def _planned(self, name: str, module: str, plan: dict) -> None:
        path = files.write(self.layout.root / f"{name}-plan.json", json.dumps(plan))
        running = await self._helper(name, module, str(path))
        if await self._line(running) != "ready":
            message = f"{name} is not ready (code {running.process.returncode}):\n{running.tail()}"
            raise DemoFailedError(message)

    async def _helper(self, name: str, module: str, argument: str) -> Running:
        self._helpers[name] = await self.processes.start(
            name, [sys.executable, "-m", module, argument], read_output=True, write_input=True
        )
        return self._helpers[name]

    async def _line(self, running: Running) -> str:
        if running.process.stdout is None:
            raise DemoFailedError("a helper has no output")
        return (await asyncio.wait_for(running.process.stdout.readline(), READY_SECONDS)).decode().strip()

    def _issue(self) -> None:
        self._certificates.mkdir(mode=0o700)
        (self._certificates / "ca.pem").write_bytes(self._authority.pem)
        (self._certificates / "ca.pem").chmod(0o600)
        hosts = [host for host in (self.centre_host, self.operators_host) if host != "localhost"]
        self._authority.issue(addresses=hosts).files(self._certificates, "collector")
        self._authority.issue().files(self._certificates, "responder")
        for name in self.names:
            self._authority.issue(spiffe_id(name)).files(self._certificates, name)

    async def _until_healthy(self, running: Running) -> None:
        own = [(self._certificates / f"responder.{kind}").read_bytes() for kind in ("key", "pem")]
        credentials = grpc.ssl_channel_credentials(self._authority.pem, *own)
        options = [("grpc.ssl_target_name_override", "localhost")]
        async with (
            grpc.aio.secure_channel(f"{self.operators_host}:{self._port}", credentials, options) as channel,
            asyncio.timeout(READY_SECONDS),
        ):
            health = health_pb2_grpc.HealthStub(channel)
            while running.process.returncode is None:
                try:
                    answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=2.0)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
                    continue
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        message = f"the collector does not serve:\n{running.tail()}"
        raise DemoFailedError(message)
