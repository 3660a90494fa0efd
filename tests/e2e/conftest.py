"""One stage for all end-to-end tests of a worker: real processes, and the stand-in as provider."""

import asyncio
import json
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from leasehold import LeaseholdClient
from leasehold.operators import OperatorClient
from leasehold_broker.demo.stage import Stage


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
def in_loop(root, settings):
    """The stage below `root`, run by a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="stage")
    thread.start()
    house = House(Stage(root, **settings), loop)
    try:
        house.wait_for(house.stage.__aenter__())
        try:
            yield house
        finally:
            house.wait_for(house.stage.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(scope="session")
def house():
    """The stage that tests share; none may stop or crash a part of it."""
    with running(chunk_ms=5) as house:
        yield house


@pytest.fixture
def fragile_house():
    """A stage for one test, which may break it; authority lapses after two seconds."""
    with running(chunk_ms=20, authority_seconds=2) as house:
        yield house
