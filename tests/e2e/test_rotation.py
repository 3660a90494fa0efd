"""A key is rotated by a real collector, or by a sidecar that runs alone, while calls are served with it."""

import http.client
import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.fakes.issuer import ec_key, jwk, jwks
from tests.fakes.own_sidecar import GRANT, OwnSidecar
from tests.fakes.planted import MARKER, planted
from tests.fakes.rotating_provider import FIRST, rotating_provider, write_program
from tests.fakes.rotation_stage import ISSUER_TABLE, KEY, LIMITS, RotationStage, signed
from tests.processes.tokens import ISSUER

from leasehold import LeaseholdClient
from leasehold.http import openai_kwargs
from leasehold.operators import OperatorClient
from leasehold.v1 import key_service_pb2 as pb
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.demo.stage import broker, client
from leasehold_broker.domain.secret import Secret

pytestmark = [pytest.mark.timeout(240)]
WATCH_SECONDS = 120
LOAD_THREADS = int(os.environ.get("ROTATE_LOAD_THREADS", "4"))
"""Callers at once; `make rotate-load` has more of them."""


@pytest.fixture
def world_files():
    """Provider, and the files of both processes."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder, rotating_provider() as (account, origin):
        yield account, RotationStage(Path(folder), origin)


@pytest.fixture
def world(world_files):
    """Provider and both processes."""
    account, stage = world_files
    with stage.process("collector"), stage.process("sidecar"):
        yield account, stage


def chat(kwargs, *, stream):
    """One call; gives its status and whether it came whole."""
    base = urlsplit(kwargs["base_url"])
    connection = http.client.HTTPConnection(base.hostname, base.port, timeout=60)
    message = {"model": "gpt-6-luna", "max_completion_tokens": 16, "messages": [{"role": "user", "content": "hi"}]}
    if stream:
        message |= {"stream": True}
    headers = {"Authorization": f"Bearer {kwargs['api_key']}", "Content-Type": "application/json"}
    try:
        connection.request("POST", f"{base.path}/chat/completions", json.dumps(message), headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as fault:
        return 0, type(fault).__name__
    finally:
        connection.close()
    return answer.status, b"[DONE]" in body if stream else body.startswith(b"{")


def load(kwargs, over, results, number):
    """Calls, one after the other, every third of them a stream, until told."""
    count = 0
    while not over.is_set():
        count += 1
        results.append(chat(kwargs, stream=(count + number) % 3 == 0))
        time.sleep(0.02)


def test_a_rotation_under_load_drops_no_call(world):
    """Calls and streams all the while: none fails, none is made with the old key once it was ended; it is done."""
    account, stage = world
    with LeaseholdClient(stage.agent, signed("agent")) as client, client.acquire(provider="openai", ttl="10m") as lease:
        kwargs, over, results = openai_kwargs(lease), threading.Event(), []
        threads = [
            threading.Thread(target=load, args=(kwargs, over, results, number)) for number in range(LOAD_THREADS)
        ]
        for thread in threads:
            thread.start()
        try:
            with stage.custodian() as custodian:
                asked = custodian.rotate(KEY, note="quarterly")
                states = [each.state for each in custodian.watch(asked.name, WATCH_SECONDS)]
        finally:
            over.set()
            for thread in threads:
                thread.join()
    seconds = account.calls[-1].when - account.calls[0].when
    streams = sum(call.stream for call in account.calls)
    print(f"{len(results)} calls, {streams} of them streams, {len(results) / seconds:.0f} a second")  # noqa: T201
    assert states[-1] == pb.ROTATION_STATE_DONE
    assert pb.ROTATION_STATE_DRAINING in states
    assert {result for result in results if result != (200, True)} == set()
    assert all(call.alive for call in account.calls)
    keys = {call.key for call in account.calls}
    assert keys == {FIRST, account.alive()[0].value}
    assert [key.id for key in account.alive()] == ["key-2"]
    assert account.minted == 1
    types = [event["type"] for event in stage.events()]
    assert types[0] == "key.rotation_started"
    assert types[-1] == "key.rotation_done"
    said = "".join(stage.said)
    for file in stage.root.rglob("*"):
        text = file.read_bytes() if file.is_file() else b""
        assert MARKER.encode() not in text, file
    assert MARKER not in said


def told(collector, *arguments):
    """What the operators' command says; it must succeed."""
    done = subprocess.run(
        [*client(*arguments), "--collector", collector],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env=os.environ,
    )
    assert not done.returncode, done.stderr
    assert done.stderr == "" or done.stderr.startswith("leasehold: no live leases match")
    return done.stdout


def test_a_key_that_was_handed_out_is_replaced(world_files):
    """Its lease is revoked: the key that the agent holds is dead at its provider a little later, by itself."""
    account, stage = world_files
    policy = stage.root / "policy.toml"
    handed = 'modes = ["disclosed"]\ndisclosed_keys = ["openai-test"]'
    policy.write_text(policy.read_text().replace("delegation_depth_max = 2", handed))
    with (
        stage.process("collector"),
        stage.process("sidecar"),
        LeaseholdClient(stage.agent, signed("agent")) as agent,
        stage.custodian() as custodian,
    ):
        with agent.acquire(provider="openai", mode="disclosed", renew=False) as lease:
            assert openai_kwargs(lease)["api_key"] == FIRST
            assert "is in force" in told(stage.centre, "revoke", "--key", KEY, "--note", "seen elsewhere")
        until = time.monotonic() + WATCH_SECONDS
        while not (found := list(custodian.rotations(KEY))) and time.monotonic() < until:
            time.sleep(0.2)
        assert list(custodian.watch(found[0].name, WATCH_SECONDS))[-1].state == pb.ROTATION_STATE_DONE
        assert found[0].trigger == pb.ROTATION_TRIGGER_DISCLOSED
    assert not account.lives(FIRST)
    assert len(account.alive()) == 1


def test_a_key_that_cannot_be_tried_is_refused_at_the_start(world_files):
    """Every rotation of it would make a key, give it up and begin again: it is to be said that nothing is proven."""
    _, stage = world_files
    store = LocalKeys(str(stage.root / "keys.json"), FileMasterKey(str(stage.root / "master.key")), SystemClock())
    store.add("bedrock-test", "bedrock", "test", Secret(planted("bedrock").encode()))
    file = stage.root / "collector.toml"
    file.write_text(file.read_text().replace(f'key = "{KEY}"', 'key = "bedrock-test"'))
    arguments = broker("collector", "--config", str(file))
    refused = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "no harmless call at 'bedrock'" in refused.stderr
    assert "set probe = false" in refused.stderr
    file.write_text(file.read_text().replace("[[rotations]]", "[[rotations]]\nprobe = false"))
    with stage.process("collector"):
        pass


def test_an_incident_revokes_and_rotates(world):
    """One command: the leases on the key die, the key is rotated as an incident; both are in the log, by whom."""
    account, stage = world
    with LeaseholdClient(stage.agent, signed("agent")) as agent, agent.acquire(provider="openai", ttl="10m") as lease:
        kwargs = openai_kwargs(lease)
        assert chat(kwargs, stream=False) == (200, True)
        said = told(stage.centre, "revoke", "--key", KEY, "--rotate", "--cause", "key-leaked", "--note", "in a paste")
        assert "is in force" in said
        assert "was asked for" in said
        assert chat(kwargs, stream=False)[0] == 403
        with stage.custodian() as custodian:
            (rotation,) = custodian.rotations(KEY)
            assert list(custodian.watch(rotation.name, WATCH_SECONDS))[-1].state == pb.ROTATION_STATE_DONE
            assert rotation.trigger == pb.ROTATION_TRIGGER_INCIDENT
        with agent.acquire(provider="openai", ttl="10m") as fresh:
            assert chat(openai_kwargs(fresh), stream=False) == (200, True)
    assert not account.lives(FIRST)
    assert account.calls[-1].key == account.alive()[0].value
    assert "done" in told(stage.centre, "keys", "rotations", "--key", KEY)
    refused = subprocess.run(
        [*client("revoke", "--all", "--yes", "--rotate"), "--collector", stage.centre],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ,
    )
    assert refused.returncode == 1
    assert "goes with a key as selector only" in refused.stderr


def test_a_key_that_nobody_awaits_is_neither_taken_nor_told(world):
    """Handed in by mistake: refused with what to do, and in no log, event or error."""
    _, stage = world
    command = [*client("keys", "supply", KEY), "--collector", stage.centre]
    settings = {"capture_output": True, "text": True, "timeout": 60, "env": os.environ}
    done = subprocess.run(command, check=False, input=planted("by-mistake") + "\n", **settings)
    assert done.returncode == 1
    assert "awaits a key" in done.stderr
    empty = subprocess.run(command, check=False, input="\n", **settings)
    assert (empty.returncode, "on one line" in empty.stderr) == (2, True)
    texts = [file.read_bytes() for file in stage.root.rglob("*") if file.is_file()]
    told_texts = [done.stdout, done.stderr, empty.stderr, *stage.said]
    assert all(b"by-mistake" not in text for text in [*texts, "".join(told_texts).encode()])


def test_a_revocation_switches_the_key_off_at_its_provider(world):
    """A dry run says what would be ended; then the leases die, the key is ended and seen dead, and none follows."""
    account, stage = world
    revoke = ("revoke", "--key", KEY, "--disable-upstream", "--note", "in a paste")
    dry = told(stage.centre, *revoke, "--dry-run")
    assert "the key key-1 would be ended by your own minter" in dry
    assert account.lives(FIRST)
    with LeaseholdClient(stage.agent, signed("agent")) as agent, agent.acquire(provider="openai", ttl="10m") as lease:
        assert chat(openai_kwargs(lease), stream=False) == (200, True)
        said = told(stage.centre, *revoke).splitlines()
        assert chat(openai_kwargs(lease), stream=False)[0] == 403
    assert "it was asked for that the key key-1 be ended by your own minter" in "\n".join(said)
    assert said[-1].endswith(f"to disable {KEY} is done")
    assert (account.alive(), account.minted) == ([], 0)
    types = [event["type"] for event in stage.events("key.disab")]
    assert (types[0], types[-1]) == ("key.disabling_started", "key.disabled_upstream")
    # The console of the provider brings a new key; the store takes it by a rotation, as any other.
    for wrong in (["--all", "--yes"], ["--key", KEY, "--rotate"], ["--key", "another"]):
        command = [*client("revoke", *wrong, "--disable-upstream"), "--collector", stage.centre]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)
        assert refused.returncode == 1
        assert "disable_key" in refused.stderr
    with OperatorClient(stage.centre, timeout_seconds=30) as operators:
        assert len(list(operators.revocations())) == 1


def test_a_collector_that_is_killed_while_it_switches_a_key_off_goes_on(world_files):
    """Kill -9 while the provider is asked, the revocation in force: the next life ends the key and proves it dead."""
    account, stage = world_files
    asked, held, open_ = account.asked, threading.Event(), threading.Event()

    def gate(verb, words, value):
        if verb == "end":
            held.set()
            open_.wait(WATCH_SECONDS)
        return asked(verb, words, value)

    account.asked = gate
    with stage.process("collector") as process:
        told(stage.centre, "revoke", "--key", KEY, "--disable-upstream", "--no-watch")
        assert held.wait(WATCH_SECONDS)
        process.kill()
        process.wait(30)
    account.asked = asked
    with stage.process("collector"), stage.custodian() as custodian:
        (rotation,) = custodian.rotations(KEY)
        assert rotation.disables
        assert list(custodian.watch(rotation.name, WATCH_SECONDS))[-1].state == pb.ROTATION_STATE_DONE
    assert account.alive() == []
    open_.set()


def test_a_rotation_is_given_up_by_an_operator(world):
    """The provider does not take the new key yet: cancelled, it is ended, and calls go on with the present one."""
    account, stage = world
    lives, account.lives = account.lives, lambda value: value == FIRST
    with stage.custodian() as custodian:
        asked = custodian.rotate(KEY)
        states = custodian.watch(asked.name, WATCH_SECONDS)
        assert any(each.state == pb.ROTATION_STATE_PROBING for each in states)
    said = told(stage.centre, "keys", "cancel", asked.name, "--watch", "--note", "wrong project").splitlines()
    assert f"{asked.name} of {KEY} is failed: cancelled by uid:" in said[-1]
    assert said[-1].endswith("wrong project")
    account.lives = lives
    assert [key.value for key in account.alive()] == [FIRST]
    assert told(stage.centre, "keys", "cancel", asked.name).splitlines() == said[-1:]
    assert [event["type"] for event in stage.events()].count("key.rotation_cancelled") == 1
    with LeaseholdClient(stage.agent, signed("agent")) as agent, agent.acquire(provider="openai", ttl="10m") as lease:
        assert chat(openai_kwargs(lease), stream=False) == (200, True)
    done = told(stage.centre, "keys", "rotate", KEY, "--watch").splitlines()[-1]
    assert done.endswith("is done")
    late = [*client("keys", "cancel", done.split()[0]), "--collector", stage.centre]
    refused = subprocess.run(late, capture_output=True, text=True, timeout=60, check=False, env=os.environ)
    assert refused.returncode == 1
    assert "is over" in refused.stderr


def test_a_sidecar_that_runs_alone_rotates_for_itself():
    """The same flow without a collector: asked for at the admin socket, calls before and after are served."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder, rotating_provider() as (account, origin):
        root = Path(folder)
        (root / "jwks.json").write_bytes(jwks(jwk(ec_key("process"), kid="k", use="sig")))
        write_program(root / "mint.py", origin)
        account.keys[0].value = planted()
        more = f"""
[providers.openai]
origin = "{origin}"
allow_private = true
[[rotations]]
key = "{KEY}"
at = {{ minter = "exec", program = "mint.py" }}
{LIMITS}
"""
        issuer = ISSUER_TABLE.format(issuer=ISSUER, root=root)
        own = OwnSidecar(root, issuer, GRANT.format(name="test", issuer=ISSUER, extra=""), more=more)
        with (
            own.running(),
            LeaseholdClient(own.target, signed("agent")) as agent,
            agent.acquire(provider="openai", ttl="10m") as lease,
        ):
            assert chat(openai_kwargs(lease), stream=False) == (200, True)
            said = told(f"unix://{root}/admin/admin.sock", "keys", "rotate", KEY, "--watch")
            assert said.splitlines()[-1].endswith("is done")
            assert chat(openai_kwargs(lease), stream=False) == (200, True)
        assert [call.key for call in account.calls] == [planted(), account.alive()[0].value]
