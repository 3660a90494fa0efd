"""What the service manager is told, on a real socket: when it is told, and that silence means that nothing is done."""

import asyncio
import contextlib
import itertools
import os
import socket

import pytest

from leasehold_broker.adapters.isolated_start import environment_of
from leasehold_broker.adapters.service_manager import ServiceManager

WATCHDOG_USEC = "30000"


class Manager:
    """What a service manager hears."""

    def __init__(self, address) -> None:
        """Listen there."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)  # noqa: FBT003 - its only argument

    async def hears(self) -> str:
        """The next word."""
        async with asyncio.timeout(60):
            return (await asyncio.get_running_loop().sock_recv(self.socket, 100)).decode()

    def heard(self) -> list[str]:
        """What is there by now."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(100).decode())
        return found


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A manager, and its address as the environment has it."""
    name = f"leasehold-test-{os.getpid()}"
    heard = Manager(str(tmp_path / "notify") if request.param == "path" else f"\0{name}")
    yield heard, str(tmp_path / "notify") if request.param == "path" else f"@{name}"
    heard.socket.close()


async def test_ready_then_alive_then_stopping(manager):
    """In this order; alive again and again while work goes on."""
    heard, address = manager
    told = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": WATCHDOG_USEC, "WATCHDOG_PID": str(os.getpid())})
    async with told.told(itertools.count().__next__):
        assert [await heard.hears() for _ in range(3)] == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    assert heard.heard()[-1] == "STOPPING=1"


async def test_who_does_nothing_is_not_said_to_be_alive(manager):
    """The work stands still: many beats pass, and no word; it goes on: one word for it."""
    heard, address = manager
    done, looked = [0], [0]

    def progress():
        looked[0] += 1
        return done[0]

    async with ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": WATCHDOG_USEC}).told(progress):
        assert await heard.hears() == "READY=1"
        async with asyncio.timeout(60):
            while looked[0] < 6:  # noqa: ASYNC110 - its own time
                await asyncio.sleep(0.01)
        assert heard.heard() == []
        done[0] = 1
        assert await heard.hears() == "WATCHDOG=1"


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "2"}, {"NOTIFY_SOCKET": "/nowhere/at/all"}, {"NOTIFY_SOCKET": "/dev/null"}]
)
async def test_nobody_to_tell_is_no_fault(environ):
    """Without a manager, or with one that is gone, the process goes on."""
    async with ServiceManager(environ).told(itertools.count().__next__):
        pass


async def test_a_watchdog_that_is_meant_for_another_process_is_not_fed(manager):
    """WATCHDOG_PID names whom it is for."""
    heard, address = manager
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": WATCHDOG_USEC, "WATCHDOG_PID": "1"}
    async with ServiceManager(environ).told(itertools.count().__next__):
        assert await heard.hears() == "READY=1"
    assert heard.heard() == ["STOPPING=1"]


def test_the_isolated_process_keeps_what_its_manager_told_it():
    """The three variables of the protocol survive the start anew."""
    names = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2"}
    assert environment_of(names | {"LD_PRELOAD": "x"}, frozenset()).kept == names
