"""leasehold-broker keys, as typed: what it stores, prints and refuses."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from tests.fakes.planted import planted

from leasehold_broker.cli import main

PLANTED = planted("0123456789abcdef")


@pytest.fixture
def run(tmp_path):
    """Runs the command on a store in a private folder; nothing it prints or leaves behind holds the planted key."""
    folder = tmp_path / "private"

    def call(command, *args, value=None, code=0):
        where = ["--store", str(folder / "keys.json"), "--master-key-file", str(folder / "master.key")]
        result = CliRunner().invoke(main, ["keys", command, *where, *args], input=value)
        assert PLANTED not in result.output + repr(result.exception)
        assert result.exit_code == code, result.output
        for file in folder.iterdir() if folder.exists() else ():
            assert PLANTED.encode() not in file.read_bytes()
        return result.output

    return call


ANTHROPIC = ("anthropic-prod", "--provider", "anthropic", "--environment", "production")


def test_a_key_lives(run):
    """A key is stored, listed, replaced, disabled, enabled and removed, and never shown."""
    run("init")
    assert "the store holds no keys" in run("list")
    (stored,) = json.loads(run("add", *ANTHROPIC, "--json", value=PLANTED + "\n"))
    assert {name: stored[name] for name in ("name", "provider", "environment", "state")} == {
        "name": "anthropic-prod",
        "provider": "anthropic",
        "environment": "production",
        "state": "enabled",
    }
    assert "say --replace" in run("add", *ANTHROPIC, value=PLANTED, code=1)
    assert json.loads(run("add", *ANTHROPIC, "--replace", "--json", value=PLANTED + "\r\n"))[0]["version"] == 2
    assert "disabled" in run("disable", "anthropic-prod")
    assert "enabled" in run("enable", "anthropic-prod")
    assert "removed anthropic-prod" in run("remove", "anthropic-prod", "--yes")
    assert json.loads(run("list", "--json")) == []


@pytest.mark.parametrize(
    "value", ["", "\n", "two words", "two\nlines", "tab\t", " lead", "\u00e9", "x" * 20_000, "a\n\n"]
)
def test_values_that_are_refused(run, value):
    """A value that could not stand in a header is refused, and not repeated."""
    run("init")
    output = run("add", *ANTHROPIC, value=value, code=1)
    assert ("the value" if value.strip() else "no value came") in output


def test_value_as_argument_is_refused(run):
    """What looks like a key where a name belongs is a usage error that does not store or repeat it."""
    run("init")
    run("add", PLANTED.upper() + "/+", "--provider", "anthropic", "--environment", "p", code=2)


def test_nothing_is_overwritten(run):
    """A second init changes nothing."""
    run("init")
    run("add", *ANTHROPIC, value=PLANTED)
    assert "never overwritten" in run("init", code=1)
    assert "anthropic-prod" in run("list")


def test_clear_errors(run, tmp_path):
    """Without a store, and for unknown keys, one sentence says what to do."""
    assert "cannot be read" in run("list", code=1)
    run("init")
    assert "it holds: none" in run("disable", "other", code=1)
    (tmp_path / "private" / "keys.json").chmod(0o644)
    assert "run chmod 600 on it" in run("list", code=1)


def test_passphrase(tmp_path):
    """A store under a passphrase asks for it, twice when it is made."""
    store = ["--store", str(tmp_path / "p" / "keys.json"), "--passphrase"]
    words = "correct horse battery"

    def call(command, *args, typed, code=0):
        result = CliRunner().invoke(main, ["keys", command, *store, *args], input=typed)
        assert result.exit_code == code, result.output
        assert words not in result.output
        return result.output

    call("init", typed=f"{words}\n{words}\n")
    call("add", *ANTHROPIC, typed=f"{words}\n{PLANTED}\n")
    assert "anthropic-prod" in call("list", typed=f"{words}\n")
    assert "the passphrase is not the one" in call("list", typed="wrong horse battery\n", code=1)


def test_one_way_to_the_master_key(tmp_path):
    """Neither or both ways to the master key is wrong usage."""
    for ways in ([], ["--passphrase", "--master-key-file", "m"]):
        result = CliRunner().invoke(main, ["keys", "list", "--store", str(tmp_path / "s"), *ways])
        assert result.exit_code == 2
        assert "give one of --master-key-file, --transit-of and --passphrase" in result.output


def test_commands_are_imported_when_called():
    """Asking for help on keys imports neither gRPC nor the policy engine."""
    program = (
        "import sys\n"
        "from leasehold_broker.cli import main\n"
        "main(['keys', '--help'], standalone_mode=False)\n"
        "assert not {'grpc', 'cedarpy', 'jwt', 'hvac'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
