"""The stage: issuer, stand-in, key store, policy, one collector and two sidecars, all real, below one private folder.

The demo plays on it; so do the end-to-end tests. Owns the order of setting up and taking down.
"""

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from leasehold.http import STRIPPED_VARIABLES
from leasehold_broker.demo import files
from leasehold_broker.demo.issuer import Issuer
from leasehold_broker.demo.processes import DemoFailedError, Processes, Running, clean_environment

SIDECARS = ("sidecar-a", "sidecar-b")
STAND_IN_SECONDS = 20.0


class Stage:
    """Everything that runs; use it as an async context manager."""

    def __init__(
        self,
        root: Path,
        real_keys: Mapping[str, str] | None = None,
        *,
        chunk_ms: int = 8,
        sidecars: tuple[str, ...] = SIDECARS,
        authority_seconds: int = 30,
    ) -> None:
        """Prepare below `root`.

        Args:
            root: a folder that exists, mode 700.
            real_keys: provider to key, for providers that are to be called for real; the stand-in serves the others.
            chunk_ms: pace of the stand-in's streams.
            sidecars: their names.
            authority_seconds: how long a sidecar goes on without hearing the collector.
        """
        self.layout = files.Layout(root)
        self.real = dict(real_keys or {})
        self.stand_in_keys = {
            provider: f"sk-stand-in-{provider}-{secrets.token_hex(16)}"
            for provider in files.MODELS
            if provider not in self.real
        }
        self.issuer = Issuer()
        self.origin = ""
        self.started_seconds: dict[str, float] = {}
        extra = {"PYTHONUNBUFFERED": "1", "LEASEHOLD_COLLECTOR": self.collector_target}
        self.processes = Processes(self.layout.logs, clean_environment(extra, STRIPPED_VARIABLES))
        self._chunk_ms = chunk_ms
        self._names = sidecars
        self._authority_seconds = authority_seconds
        self._serving: dict[str, Running] = {}

    @property
    def collector_target(self) -> str:
        """For `leasehold revoke --collector` and `leasehold audit --collector`."""
        return f"unix://{self.layout.socket('collector')}"

    def sidecar_target(self, name: str) -> str:
        """For a client."""
        return f"unix://{self.layout.socket(name)}"

    def workload(self, name: str, subject: str, **claims: str) -> Path:
        """Project a token for an agent, in the demo's environment; returns its file."""
        return self.issuer.project(
            self.layout.token(name), subject, files.SIDECAR_AUDIENCE, {"environment": files.ENVIRONMENT, **claims}
        )

    def policy_text(self) -> str:
        """The policy that the sidecars load."""
        return files.policy(self.issuer.url)

    def sidecar_text(self, name: str, origins: Mapping[str, str]) -> str:
        """The configuration of a sidecar."""
        return files.sidecar(self.layout, name, self.issuer.url, self.issuer.jwks_url, origins)

    def serving(self, name: str) -> Running:
        """The process of a part that serves: a sidecar, the collector, or what plays the providers ("stand-in")."""
        return self._serving[name]

    async def __aenter__(self) -> Self:
        """Set everything up, and wait until it serves."""
        try:
            await self._set_up()
        except BaseException:
            await self._take_down()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take everything down."""
        await self._take_down()

    async def start(self, name: str) -> None:
        """Start the collector or a sidecar, and wait until it serves.

        Raises:
            DemoFailedError: it does not.
        """
        command = "collector" if name == "collector" else "sidecar"
        running = await self.processes.start(name, broker(command, "--config", str(self.layout.config(name))))
        self._serving[name] = running
        self.started_seconds[name] = await self.processes.until_healthy(running, self.layout.socket(name))

    async def stop(self, name: str) -> None:
        """Stop one as an operator would: a sidecar drains, settles and ships what it has.

        Raises:
            DemoFailedError: it did not end well.
        """
        code = await self.processes.stop(self._serving.pop(name))
        if code != 0:
            message = f"{name} ended with code {code}"
            raise DemoFailedError(message)

    async def crash(self, name: str) -> None:
        """Kill one on the spot."""
        running = self._serving.pop(name)
        running.process.kill()
        await running.process.wait()
        await self.processes.stop(running)

    async def _set_up(self) -> None:
        layout = self.layout
        layout.make()
        await self.issuer.start()
        origins = {}
        if self.stand_in_keys:
            self.origin = await self.start_provider()
            origins = dict.fromkeys(self.stand_in_keys, self.origin)
        await self._fill_key_store()
        url, jwks = self.issuer.url, self.issuer.jwks_url
        files.write(layout.policy, self.policy_text())
        centre = files.collector(layout, url, jwks, self._names, os.geteuid(), self._authority_seconds)
        files.write(layout.config("collector"), centre)
        await self.start("collector")
        for name in self._names:
            self.issuer.project(layout.token(name), f"sidecars/{name}", files.COLLECTOR_AUDIENCE)
            files.write(layout.config(name), self.sidecar_text(name, origins))
        async with asyncio.TaskGroup() as group:
            for name in self._names:
                group.create_task(self.start(name))

    async def _take_down(self) -> None:
        await self.processes.stop_all()
        await self.issuer.stop()

    async def start_provider(self) -> str:
        """Start what plays the providers; returns its origin."""
        keys = files.write(self.layout.root / "stand-in-keys.json", json.dumps(self.stand_in_keys))
        arguments = [sys.executable, "-m", "leasehold_broker.demo.stand_in", "--keys-file", str(keys)]
        arguments += ["--journal", str(self.layout.journal), "--chunk-ms", str(self._chunk_ms)]
        running = await self.processes.start("stand-in", arguments, read_output=True)
        if running.process.stdout is None:
            raise DemoFailedError("the stand-in has no output")
        self._serving["stand-in"] = running
        async with asyncio.timeout(STAND_IN_SECONDS):
            line = await running.process.stdout.readline()
        if not line:
            raise DemoFailedError("the stand-in did not start")
        # It has its keys in memory: from here on they are on disk in the encrypted store only.
        keys.unlink()
        return str(json.loads(line)["origin"])

    async def _fill_key_store(self) -> None:
        """As an operator does it: the values go in on standard input."""
        store = ["--store", str(self.layout.keys), "--master-key-file", str(self.layout.master_key)]
        await self._keys_command(["init", *store])
        async with asyncio.TaskGroup() as group:
            for provider, key in {**self.stand_in_keys, **self.real}.items():
                named = ["add", f"{provider}-demo", "--provider", provider, "--environment", files.ENVIRONMENT]
                group.create_task(self._keys_command([*named, *store], key.encode()))

    async def _keys_command(self, arguments: list[str], stdin: bytes = b"") -> None:
        finished = await self.processes.run(broker("keys", *arguments), stdin=stdin)
        if finished.code != 0:
            message = f"leasehold-broker keys {arguments[0]} ended with code {finished.code}: {finished.err}"
            raise DemoFailedError(message)


def broker(*arguments: str) -> list[str]:
    """`leasehold-broker` of this very interpreter, wherever it is installed."""
    return [sys.executable, "-c", "from leasehold_broker.cli import main; main()", *arguments]


def client(*arguments: str) -> list[str]:
    """`leasehold` of this very interpreter."""
    return [sys.executable, "-m", "leasehold.cli", *arguments]
