"""Processes by pidfd: bounded, shared by the leases of one process, told once, on both event loops."""

import asyncio
import socket
import subprocess
import sys

import pytest
import uvloop

from leasehold_broker.adapters.peer_processes import PidfdProcesses
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Reason, Refusal

CONNECT = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.close(); print(); input()"


class World:
    """A listener, and processes that have connected to it."""

    def __init__(self, folder, processes_max: int) -> None:
        """Listen."""
        self.path = str(folder / "s")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.connections: dict[str, socket.socket] = {}
        self.running: list[subprocess.Popen] = []
        self.processes = PidfdProcesses(
            lambda name: self.connections[name].fileno() if name in self.connections else None, processes_max
        )

    def start(self) -> Peer:
        """A process connects, closes its end, and goes on."""
        process = subprocess.Popen(
            [sys.executable, "-c", CONNECT, self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        accepted, _ = self.listener.accept()
        process.stdout.readline()
        self.running.append(process)
        name = str(len(self.running))
        self.connections[name] = accepted
        return Peer(0, connection=name)

    def end(self, peer: Peer) -> None:
        """Its process ends."""
        self.running[int(peer.connection) - 1].kill()

    def close(self) -> None:
        """Clean up."""
        self.processes.close()
        for process in self.running:
            process.kill()
            process.communicate()
        for one in (*self.connections.values(), self.listener):
            one.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request, tmp_path):
    """Runs a coroutine function on each loop, with a world that has room for two processes."""

    def run(act) -> None:
        async def acted() -> None:
            world = World(tmp_path, 2)
            try:
                await asyncio.wait_for(act(world), 20)
            finally:
                world.close()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(acted())

    return run


def test_everyone_who_waits_is_told_once(play):
    """Two watches of one process share a descriptor; a third that was stopped hears nothing."""

    async def act(world):
        told, over = [], asyncio.Event()
        peer = world.start()
        first = world.processes.watch(peer, lambda: told.append("a"))
        world.processes.watch(peer, over.set)
        stopped = world.processes.watch(peer, lambda: told.append("c"))
        assert first.mark == stopped.mark
        stopped.stop()
        world.connections.pop(peer.connection).close()
        assert len(world.processes) == 1
        world.end(peer)
        await over.wait()
        assert told == ["a"]
        assert len(world.processes) == 0
        first.stop()

    play(act)


def test_processes_are_bounded_and_make_room(play):
    """The third process is refused until one is let go."""

    async def act(world):
        watched = [world.processes.watch(world.start(), lambda: None) for _ in range(2)]
        third = world.start()
        with pytest.raises(Refusal) as caught:
            world.processes.watch(third, lambda: None)
        assert caught.value.reason is Reason.OVERLOADED
        watched[0].stop()
        watched[0].stop()
        world.processes.watch(third, lambda: None)

    play(act)


def test_a_process_is_found_again_by_its_mark_and_no_other_is(play):
    """The mark finds the process as long as it lives; another start time, namespace or boot is another process."""

    async def act(world):
        peer, over = world.start(), asyncio.Event()
        mark = world.processes.watch(peer, lambda: None).mark
        pid, start, namespace, boot = mark.split("/")
        wrong = [f"{pid}/{int(start) + 1}/{namespace}/{boot}", f"{pid}/-/{namespace}/{boot}"]
        wrong += [f"{pid}/{start}/1/{boot}", f"{pid}/{start}/{namespace}/other", f"x/{start}/{namespace}/{boot}", ""]
        assert [world.processes.watch_again(one, lambda: None) for one in wrong] == [None] * 6
        assert world.processes.watch_again(mark, over.set).mark == mark
        world.end(peer)
        await over.wait()
        assert world.processes.watch_again(mark, over.set) is None

    play(act)


def test_what_cannot_be_watched_is_refused_with_the_reason(play):
    """A closed connection, a process that is gone, a TCP connection: each has its sentence."""

    async def act(world):
        gone = world.start()
        world.end(gone)
        world.running[0].wait()
        tcp, other = socket.create_server(("127.0.0.1", 0)), socket.socket()
        other.connect(tcp.getsockname())
        world.connections["tcp"] = tcp.accept()[0]
        for peer, why in (
            (Peer(0, connection="never"), "the connection has closed"),
            (gone, "the calling process has ended"),
            (Peer(0, connection="tcp"), "over TCP the kernel does not say which process calls"),
        ):
            with pytest.raises(Refusal) as caught:
                world.processes.watch(peer, lambda: None)
            assert caught.value.reason is Reason.FIELD_INVALID
            assert why in caught.value.message
        tcp.close()
        other.close()

    play(act)
