"""Servers that are stopped, not dead (SIGSTOP): a collector's PostgreSQL and its NATS."""

import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unkind import servers_house

WHY_NOT = "make unkind" if os.environ.get("FAULTS") != "all" else servers_house.why_not()
pytestmark = [pytest.mark.timeout(600), pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


@pytest.fixture(scope="module")
def house():
    """One sidecar, its centre, and both servers."""
    with servers_house.served() as house:
        yield house


def family(pid):
    """A process and its children: PostgreSQL has one for each session."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


@contextmanager
def stopped(pid):
    """Neither runs nor goes away."""
    pids = family(pid)
    for each in pids:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in reversed(pids):
            os.kill(each, signal.SIGCONT)


@pytest.mark.parametrize("server", ["PostgreSQL", "NATS"])
def test_a2_a3_r1_a_centre_whose_server_is_stopped_loses_nothing_and_heals(house, server):
    """Calls go on or are refused by name; each is in the log once; a revocation is refused, or is in force."""
    stage = house.stage
    pid = stage.database.pid if server == "PostgreSQL" else stage.bus.pid
    servers_house.ride_out(house, f"stopped-{server}", lambda: stopped(pid))
