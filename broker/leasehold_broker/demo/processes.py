"""Processes of the demo. Owns starting, waiting for health, and that none outlives it; refuses to guess why one failed.

A process is ended by its own id; its last words are shown when something goes wrong.
"""

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

STOP_SECONDS = 30.0
COMMAND_SECONDS = 60.0
TAIL_LINES = 15
_LOOK_SECONDS = 0.02


class DemoFailedError(Exception):
    """A step did not go as told; the message says which and how."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Running:
    """A process that serves, and its log."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def tail(self) -> str:
        """Its last words."""
        if not self.log.exists():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {self.name}: {line}" for line in lines[-TAIL_LINES:])


class Processes:
    """All processes of one demo."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        """Logs go to this folder; every process gets exactly this environment."""
        self._logs = logs
        self._environment = dict(environment)
        self._running: list[Running] = []

    def pids(self) -> list[int]:
        """Of every process that was started and not yet stopped."""
        return [running.process.pid for running in self._running]

    async def start(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        read_output: bool = False,
        write_input: bool = False,
    ) -> Running:
        """Start a process; its log is its standard error, and its standard output unless that is to be read."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.PIPE if write_input else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if read_output else file,
                stderr=file,
                env={**self._environment, **(environment or {})},
            )
        running = Running(name, process, log)
        self._running.append(running)
        return running

    async def until_healthy(self, running: Running, socket: Path, seconds: float = 60.0) -> float:
        """Wait until the process says SERVING on its socket; returns the seconds that took.

        Raises:
            DemoFailedError: it ended, or did not serve in time.
        """
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            if running.process.returncode is not None:
                message = f"{running.name} ended with code {running.process.returncode}:\n{running.tail()}"
                raise DemoFailedError(message)
            if await serving(socket):
                return time.monotonic() - started
            await asyncio.sleep(_LOOK_SECONDS)
        message = f"{running.name} did not serve within {seconds:g} s:\n{running.tail()}"
        raise DemoFailedError(message)

    async def run(
        self, arguments: Sequence[str], *, environment: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> Finished:
        """Run a command to its end.

        Raises:
            DemoFailedError: it did not end in time.
        """
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self._environment, **(environment or {})},
        )
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                out, err = await process.communicate(stdin)
        except TimeoutError:
            message = f"{' '.join(arguments)} did not end within {COMMAND_SECONDS:g} s"
            raise DemoFailedError(message) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Finished(process.returncode or 0, out.decode(), err.decode())

    async def stop(self, running: Running) -> int:
        """Stop one process as an operator would; returns its exit code."""
        process = running.process
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        self._running = [each for each in self._running if each is not running]
        return process.returncode or 0

    async def stop_all(self) -> None:
        """Stop what still runs, the last started first."""
        for running in reversed(list(self._running)):
            await self.stop(running)

    def tails(self) -> str:
        """The last words of every process that still counts as running."""
        return "\n".join(filter(None, (running.tail() for running in self._running)))


def clean_environment(extra: Mapping[str, str], without: frozenset[str]) -> dict[str, str]:
    """This process's environment for children: no provider key, no proxy between SDKs and the sidecar."""
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    kept = {name: value for name, value in os.environ.items() if name not in without and name.lower() not in proxies}
    return {**kept, **extra}


async def serving(socket: Path) -> bool:
    """True when the process behind a gRPC socket says that it takes calls."""
    async with grpc.aio.insecure_channel(f"unix://{socket}", [("grpc.default_authority", "localhost")]) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2.0)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
