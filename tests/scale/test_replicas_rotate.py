"""Two real collectors rotate a key for one fleet: one leads, the other takes over, and a frozen leader does no harm."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from tests.fakes.planted import MARKER
from tests.fakes.rotating_provider import FIRST, rotating_provider
from tests.fakes.rotating_replicas import RotatingReplicas
from tests.fakes.rotation_stage import KEY

from leasehold.v1 import key_service_pb2 as pb
from leasehold_broker.demo.stage import client as client_command

WATCH_SECONDS = 150
pytestmark = [pytest.mark.timeout(400)]


class Gate:
    """Holds the answer to a mint at the provider while it is closed; the key is made before."""

    def __init__(self, account):
        """Open."""
        self._asked = account.asked
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        account.asked = self

    def __call__(self, verb, words, value):
        """As the account, later."""
        said = self._asked(verb, words, value)
        if verb == "mint":
            self.reached.set()
            self.open.wait(WATCH_SECONDS)
        return said


@pytest.fixture
def world(postgres):
    """The provider and the replicas' files."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder, rotating_provider() as (account, origin):
        yield account, RotatingReplicas(Path(folder), origin, postgres)


def last(client, asked):
    """How a rotation ends."""
    return list(client.watch(asked.name, WATCH_SECONDS))[-1]


def test_a_leader_that_wakes_up_finds_its_lead_gone_and_mints_no_second_key(world):
    """East leads and is stopped while the provider mints for it; west finishes; woken, east changes nothing.

    A sidecar is connected to west all the while: in the first rotation, led by east, its use of the key is known there.
    """
    account, replicas = world
    gate = Gate(account)
    with contextlib.ExitStack() as stack:
        east = stack.enter_context(replicas.process("east"))
        west = stack.enter_context(replicas.process("west"))
        stack.enter_context(replicas.stage.process("sidecar"))
        with replicas.custodian("west") as client:
            first = last(client, client.rotate(KEY))
        assert first.state == pb.ROTATION_STATE_DONE
        assert [key.id for key in account.alive()] == ["key-2"]
        told = [str(event["details"]) for event in replicas.rotation_events("east")]
        assert not any("not drained within" in each for each in told), told

        gate.reached.clear()
        gate.open.clear()
        with replicas.custodian("east") as client:
            asked = client.rotate(KEY)
        assert gate.reached.wait(WATCH_SECONDS)
        east.send_signal(signal.SIGSTOP)
        try:
            gate.open.set()
            with replicas.custodian("west") as client:
                assert last(client, asked).state == pb.ROTATION_STATE_DONE
            # What east had made was found by its mark, and ended before another one was made.
            assert (account.minted, [key.id for key in account.alive()]) == (3, ["key-4"])
            before = replicas.rotation_events("west")
        finally:
            east.send_signal(signal.SIGCONT)
        with replicas.custodian("east") as client:  # it is awake, and answers
            assert client.rotation(asked.name).state == pb.ROTATION_STATE_DONE
        time.sleep(3)  # for what it was about to do, several of its looks
        assert (account.minted, [key.id for key in account.alive()]) == (3, ["key-4"])
        assert replicas.rotation_events("east") == before
        assert account.lives(replicas.stage.serving_value())

        west.kill()
        west.wait(30)
        with replicas.custodian("east") as client:
            assert last(client, client.rotate(KEY)).state == pb.ROTATION_STATE_DONE
        assert [key.id for key in account.alive()] == ["key-5"]
        assert not account.lives(FIRST)
    said = "".join(line for lines in replicas.said.values() for line in lines)
    files = [file for file in replicas.root.rglob("*") if file.is_file()]
    assert all(MARKER.encode() not in file.read_bytes() for file in files)
    assert MARKER not in said


def cancelled_at(replicas, name, rotation):
    """An operator gives it up there, and follows it to its end; what the command said, and its exit code."""
    command = client_command("keys", "cancel", rotation, "--watch", "--note", "wrong project")
    done = subprocess.run(
        [*command, "--collector", f"unix://{replicas.root}/{name}.sock"],
        check=False,
        capture_output=True,
        text=True,
        timeout=WATCH_SECONDS,
        env=os.environ,
    )
    return done.returncode, done.stdout.splitlines()


def given_up(account, replicas, asked):
    """Both replicas say the same of it, it was cancelled once, and the first key is the only one alive."""
    for name in ("east", "west"):
        with replicas.custodian(name) as client:
            found = client.rotation(asked.name)
        assert (found.state, "wrong project" in found.why) == (pb.ROTATION_STATE_FAILED, True)
    assert replicas.rotation_events("east") == replicas.rotation_events("west")
    types = [event["type"] for event in replicas.rotation_events("west")]
    assert (types.count("key.rotation_cancelled"), types[-1]) == (1, "key.rotation_failed")
    assert [key.value for key in account.alive()] == [FIRST] == [replicas.stage.serving_value()]


def test_a_rotation_is_given_up_at_the_replica_that_does_not_lead(world):
    """East mints; the word comes to west, by the command: what east has made meanwhile is ended, by east itself.

    Then the same with east frozen in the middle of it, so that west has to undo what another process had begun.
    """
    account, replicas = world
    gate = Gate(account)
    with contextlib.ExitStack() as stack:
        east = stack.enter_context(replicas.process("east"))
        stack.enter_context(replicas.process("west"))

        def minting():
            gate.reached.clear()
            gate.open.clear()
            with replicas.custodian("east") as client:
                asked = client.rotate(KEY)
            assert gate.reached.wait(WATCH_SECONDS)
            assert len(account.alive()) == 2
            return asked

        asked = minting()
        waiter = threading.Timer(3, gate.open.set)  # after the word, in all likelihood; right in either order
        waiter.start()
        code, said = cancelled_at(replicas, "west", asked.name)
        waiter.join()
        assert code == 0, said
        assert "is failed: cancelled by uid:" in said[-1]
        given_up(account, replicas, asked)

        asked = minting()
        east.send_signal(signal.SIGSTOP)
        replicas.end_leads()
        try:
            code, said = cancelled_at(replicas, "west", asked.name)
            assert code == 0, said
            assert [key.value for key in account.alive()] == [FIRST]
        finally:
            gate.open.set()
            east.send_signal(signal.SIGCONT)
        with replicas.custodian("east") as client:
            assert client.rotation(asked.name).state == pb.ROTATION_STATE_FAILED
        time.sleep(3)  # for what it was about to do, several of its looks
        assert [key.value for key in account.alive()] == [FIRST] == [replicas.stage.serving_value()]
        with replicas.custodian("west") as client:  # and the next one goes well
            assert last(client, client.rotate(KEY)).state == pb.ROTATION_STATE_DONE
