"""One stage for all end-to-end tests of a worker: real processes, and the stand-in as provider."""

import asyncio
import json
import os
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import pytest

from leasehold import LeaseholdClient
from leasehold.operators import OperatorClient
from leasehold_broker.demo import files
from leasehold_broker.demo.processes import Running
from leasehold_broker.demo.stage import Stage, broker

SECONDS_MAX = 180
AUTHORITY_SECONDS = 5


def eventually(holds):
    """The first true answer, asked again and again for a while; the last answer when there is none."""
    deadline = time.monotonic() + SECONDS_MAX
    while not (answer := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


@dataclass
class House:
    """A running stage, for tests that block."""

    stage: Stage
    loop: asyncio.AbstractEventLoop

    def wait_for(self, work):
        """Run something of the stage's to its end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    def client(self, sidecar="sidecar-a", name="researcher", subject="agents/research/lead"):
        """A client of one sidecar, with a fresh workload token."""
        token = self.stage.workload(f"{name}-{sidecar}", subject, team="research")
        return LeaseholdClient(self.stage.sidecar_target(sidecar), token)

    def operator(self):
        """A client of the collector, known by its uid."""
        return OperatorClient(self.stage.collector_target)

    def served(self):
        """The stand-in's book."""
        lines = self.stage.layout.journal.read_text().splitlines() if self.stage.layout.journal.exists() else []
        return [json.loads(line) for line in lines]


@contextmanager
def running(**settings):
    """A stage in a loop of its own, below a folder whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="leasehold-") as folder, in_loop(Path(folder), settings) as house:
        yield house


@contextmanager
def in_loop(root, settings, kind=Stage):
    """The stage below `root`, run by a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="stage")
    thread.start()
    house = House(kind(root, **settings), loop)
    try:
        house.wait_for(house.stage.__aenter__())
        try:
            yield house
        finally:
            house.wait_for(house.stage.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


@pytest.fixture(scope="session")
def house():
    """The stage that tests share; none may stop or crash a part of it."""
    with running(chunk_ms=5) as house:
        yield house


@dataclass
class Alone:
    """A third sidecar of the stage, which runs alone: its policy and its metrics are its own."""

    house: House
    name: str
    admin: Path
    policy: Path
    prices: Path
    running: Running

    def client(self, name="alone", subject="agents/research/alone"):
        """A client of it, with a fresh workload token."""
        token = self.house.stage.workload(name, subject)
        return LeaseholdClient(self.house.stage.sidecar_target(self.name), token)

    def operator(self):
        """A client of its admin socket."""
        return OperatorClient(f"unix://{self.admin}")

    def logged(self, event=None, file=None):
        """The lines of its log: all, or those about an event and a file."""
        lines = [json.loads(line) for line in self.running.log.read_text().splitlines()]
        return [line for line in lines if event in {None, line["event"]} and file in {None, line.get("file")}]

    def metrics(self):
        """The numbers that it shows now."""
        port = next(line["metrics_port"] for line in self.logged() if line["event"] == "serving")
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def signal(self, number):
        """Send it a signal."""
        self.running.process.send_signal(number)

    def stop(self):
        """Stop it as an operator would; its exit code."""
        return self.house.wait_for(self.house.stage.processes.stop(self.running))


@pytest.fixture
def alone(house):
    """A sidecar that is told that it runs alone."""
    stage, layout, name = house.stage, house.stage.layout, f"alone-{uuid4().hex[:6]}"
    told = files.sidecar(
        layout, name, stage.issuer.url, stage.issuer.jwks_url, dict.fromkeys(stage.stand_in_keys, stage.origin)
    )
    admin = layout.root / "run" / f"{name}-admin" / "admin.sock"
    policy = files.write(layout.root / f"{name}-policy.toml", stage.policy_text())
    text = told[: told.index("[collector]")].replace(str(layout.policy), str(policy))
    text = text.replace("drain_seconds = 2.0", "drain_seconds = 60.0")
    text += f'[alone]\nadmin_socket = "{admin}"\noperator_uids = [{os.geteuid()}]\n'
    prices = files.write(layout.root / f"{name}-prices.toml", "")
    text += f'[prices]\noverride_file = "{prices}"\n'
    text += '[metrics]\naddress = "127.0.0.1:0"\n'
    files.write(layout.config(name), text)
    running = house.wait_for(stage.processes.start(name, broker("sidecar", "--config", str(layout.config(name)))))
    house.wait_for(stage.processes.until_healthy(running, layout.socket(name)))
    alone = Alone(house, name, admin, policy, prices, running)
    yield alone
    if running.process.returncode is None:
        assert alone.stop() == 0


@pytest.fixture
def fragile_house():
    """A stage for one test, which may break it; authority lapses soon."""
    with running(chunk_ms=20, authority_seconds=AUTHORITY_SECONDS) as house:
        yield house
