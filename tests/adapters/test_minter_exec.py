"""The program that makes keys: what it is given, what it is not, and what its misbehaviour comes to."""

import asyncio
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop
from tests.fakes.planted import planted
from tests.fakes.provider_admin.server import ADMIN_KEY
from tests.fakes.provider_admin.worlds import KEY, AtProgram
from tests.fakes.secret_scan import Scanner

from leasehold_broker.adapters.minters.exec import ExecKeys, Program
from leasehold_broker.adapters.minters.program import OUTPUT_BYTES_MAX
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState


def script(folder, text):
    """A shell script as a minter without an admin key."""
    path = folder / "minter.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return ExecKeys(Program(str(path), seconds_max=120.0), KEY)


async def until(holds):
    """Wait for it; the runner's own limit is the end of patience."""
    while not holds():  # noqa: ASYNC110 - another process does it
        await asyncio.sleep(0.01)


async def fault_of(doing) -> ProviderKeyFault:
    """Why it was not done."""
    with pytest.raises(ProviderKeyFault) as caught:
        await doing
    return caught.value


async def test_it_is_told_names_in_its_arguments_and_secrets_on_its_input_alone(tmp_path, monkeypatch):
    """Nothing of our environment, no secret in arguments or environment, and no folder of ours."""
    monkeypatch.setenv("LEASEHOLD_CANARY", planted("in-our-environment"))
    world = AtProgram(tmp_path)
    key = await world.minter().mint("rotations/17")
    await world.minter().current_id(key.value)
    await world.minter().end(key.id)
    runs = world.read()["runs"]
    assert [run["arguments"][1:] for run in runs] == [
        ["mint", KEY, "rotations/17"],
        ["current", KEY],
        ["end", KEY, key.id],
    ]
    scanner = Scanner(
        {"admin": ADMIN_KEY.encode(), "value": key.value.reveal(), "ours": planted("in-our-environment").encode()}
    )
    assert scanner.hits("runs", json.dumps(runs).encode()) == []
    assert all(set(run["environment"]) <= {"PATH", "LANG", "LC_CTYPE"} for run in runs)
    assert {run["folder"] for run in runs} == {"/"}


async def test_a_program_that_cannot_sweep_says_so_and_is_believed(tmp_path):
    """Status 64 to a sweep is no fault; to anything else it is one."""
    keys = script(tmp_path, "exit 64")
    await keys.sweep("r", "")
    assert (await fault_of(keys.end("id-1"))).state is ProviderKeyState.FAILING
    with pytest.raises(ProviderKeyFault, match="given no key the id"):
        await keys.sweep("r", "two words")


async def test_it_inherits_no_descriptor(tmp_path):
    """Three pipes and nothing else: a socket or a database of ours is not its own."""
    opened = os.open("/dev/null", os.O_RDONLY)
    ours = os.dup2(opened, 177)
    said = '{"id": "%s", "value": "v"}'
    keys = script(tmp_path, f"printf '{said}' \"a$(ls /proc/$$/fd | tr '\\n' '.')\"")
    try:
        minted = await keys.mint("r")
    finally:
        os.close(opened)
        os.close(ours)
    found = {int(number) for number in minted.id[1:].strip(".").split(".")}
    assert {0, 1, 2} <= found
    assert ours not in found


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        ("exit 3", ProviderKeyState.FAILING, "status 3"),
        ("exit 69", ProviderKeyState.UNREACHABLE, "reach"),
        ("exit 73", ProviderKeyState.FULL, "no more keys"),
        ("exit 75", ProviderKeyState.RATE_LIMITED, "later"),
        ("exit 77", ProviderKeyState.DENIED, "denied"),
        ("kill -9 $$", ProviderKeyState.FAILING, "status -9"),
        ("echo no", ProviderKeyState.MALFORMED, "JSON object"),
        ("echo '[1]'", ProviderKeyState.MALFORMED, "JSON object"),
        ("echo '{}'", ProviderKeyState.MALFORMED, "an id and a value"),
        ('echo \'{"id": "a"}\'', ProviderKeyState.MALFORMED, "an id and a value"),
        ('echo \'{"id": "-rf", "value": "v"}\'', ProviderKeyState.MALFORMED, "letter or digit"),
        ('echo \'{"id": "sk-canary", "value": "sk-canary"}\'', ProviderKeyState.MALFORMED, "ids are logged"),
        ('echo \'{"id": "a", "value": "sk canary"}\'', ProviderKeyState.MALFORMED, "white space"),
        ('echo \'{"id": "a", "value": "sk-canary\u00e9"}\'', ProviderKeyState.MALFORMED, "printable"),
        (f"head -c {OUTPUT_BYTES_MAX + 10} /dev/zero; sleep 600", ProviderKeyState.MALFORMED, "more than"),
    ],
)
async def test_what_it_does_wrong_has_a_state_and_says_no_secret(tmp_path, text, state, words):
    """Each misbehaviour ends in a fault that names it, and shows nothing of what was said."""
    fault = await fault_of(script(tmp_path, text).mint("r"))
    assert fault.state is state
    assert words in str(fault)
    chain = f"{fault} {fault.__context__!r} {fault.__cause__!r}"
    assert "canary" not in chain


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("", ProviderKeyState.UNREACHABLE),
        ("{}", ProviderKeyState.MALFORMED),
        ('{"id": null}', ProviderKeyState.MALFORMED),
    ],
)
async def test_a_program_without_a_word_has_not_said_that_it_cannot_tell(tmp_path, said, state):
    """The old key would be left to live: only an empty text as the id says so."""
    fault = await fault_of(script(tmp_path, f"printf '%s' '{said}'").current_id(Secret(planted("1").encode())))
    assert fault.state is state
    assert await script(tmp_path, 'echo \'{"id": ""}\'').current_id(Secret(planted("1").encode())) == ""


async def test_a_program_that_hangs_is_killed_with_all_that_it_started(tmp_path):
    """Its session dies with it, also when we stop waiting for another reason."""
    keys = script(tmp_path, f"sleep 600 & echo $! > {tmp_path}/child; mv {tmp_path}/child {tmp_path}/pid; wait")
    task = asyncio.create_task(keys.mint("r"))
    await until((tmp_path / "pid").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    child = int((tmp_path / "pid").read_text())
    await until(lambda: not _runs(child))


async def test_the_end_of_its_time_is_a_fault_that_says_what_is_not_known(tmp_path):
    """UNREACHABLE: whether it made a key cannot be told."""
    path = tmp_path / "slow"
    path.write_text("#!/bin/sh\nsleep 600\n")
    path.chmod(0o700)
    fault = await fault_of(ExecKeys(Program(str(path), seconds_max=0.2), KEY).mint("r"))
    assert fault.state is ProviderKeyState.UNREACHABLE
    assert "not known" in str(fault)


@pytest.mark.parametrize("bits", [stat.S_IWGRP, stat.S_IWOTH])
async def test_a_program_that_others_may_write_is_told_nothing(tmp_path, bits):
    """It would be told an admin key by whoever may replace it."""
    world = AtProgram(tmp_path)
    world.script.chmod(0o700 | bits)
    fault = await fault_of(world.minter().mint("r"))
    assert fault.state is ProviderKeyState.DENIED
    assert "chmod" in str(fault)
    assert world.read()["runs"] == []


async def test_a_program_in_a_folder_that_others_may_write_is_told_nothing(tmp_path):
    """They could put another one in its place."""
    world = AtProgram(tmp_path)
    tmp_path.chmod(0o777)
    fault = await fault_of(world.minter().mint("r"))
    assert fault.state is ProviderKeyState.DENIED
    assert "chmod 700" in str(fault)
    assert world.read()["runs"] == []


@pytest.mark.parametrize("name", ["", "-rf", "a b", "a\0b", "x" * 129])
async def test_a_rotation_without_a_usable_name_starts_nothing(tmp_path, name):
    """What becomes an argument is checked."""
    fault = await fault_of(script(tmp_path, "exit 0").mint(name))
    assert fault.state is ProviderKeyState.MALFORMED


async def test_an_id_that_no_program_gave_starts_nothing(tmp_path):
    """No option is smuggled in as an id."""
    fault = await fault_of(script(tmp_path, f"touch {tmp_path}/ran").end("--all"))
    assert fault.state is ProviderKeyState.MALFORMED
    assert not (tmp_path / "ran").exists()


async def test_a_program_that_is_not_there_or_does_not_start_is_named(tmp_path):
    """FAILING, with the system's reason."""
    gone = await fault_of(ExecKeys(Program(str(tmp_path / "gone")), KEY).mint("r"))
    assert "No such file" in str(gone)
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o600)
    fault = await fault_of(ExecKeys(Program(str(tmp_path / "text")), KEY).mint("r"))
    assert fault.state is ProviderKeyState.FAILING
    assert "Permission denied" in str(fault)


def _runs(pid: int) -> bool:
    """Whether a process lives; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_runs_on_the_loop_that_the_broker_runs_on(tmp_path):
    """The loop of uvloop starts processes in a way of its own."""
    world = AtProgram(tmp_path)

    async def mint_and_end():
        key = await world.minter().mint("r")
        assert world.living() == [key.value.reveal().decode()]
        await world.minter().end(key.id)
        assert world.living() == []

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(mint_and_end())
    assert all(set(run["environment"]) <= {"PATH", "LANG", "LC_CTYPE"} for run in world.read()["runs"])


def test_it_runs_in_a_hardened_process(tmp_path):
    """Not dumpable, no new privileges, no core file: what the broker is when it starts a program."""
    world = AtProgram(tmp_path)
    text = f"""
import asyncio
from leasehold_broker.adapters.minters.exec import ExecKeys, Program
from leasehold_broker.adapters.process_hardening import harden_process
from leasehold_broker.domain.secret import Secret

async def admin():
    return Secret({ADMIN_KEY.encode()!r})

harden_process(lock_memory=True)
program = Program({str(world.script)!r}, ({str(world.state)!r},), 120.0)
print(asyncio.run(ExecKeys(program, "k", admin).mint("r")).id)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "id-1\n", "")
