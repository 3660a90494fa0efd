"""leasehold-broker honeytoken: values are shown once and kept nowhere; bad files and names are refused in words."""

import json

import pytest
from click.testing import CliRunner

from leasehold_broker.adapters.honeytoken_file import read_honeytokens
from leasehold_broker.adapters.watched_files import FilesRefusedError
from leasehold_broker.cli.honeytoken import honeytoken
from leasehold_broker.domain.honeytokens import digest_of


def run(*arguments):
    """The command's result."""
    return CliRunner().invoke(honeytoken, [str(argument) for argument in arguments])


def test_create_list_and_remove(tmp_path):
    """The file holds the digest alone, for its owner alone; a name is used once."""
    path = tmp_path / "laid.json"
    made = run("create", "ci-image", "--kind", "anthropic", "--file", path)
    assert made.exit_code == 0, made.output
    value = made.stdout.strip()
    assert value.startswith("sk-ant-api03-")
    assert value not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    [kept] = read_honeytokens(str(path))
    assert (kept.name, kept.sha256) == ("ci-image", digest_of(value))
    again = run("create", "ci-image", "--kind", "lease", "--file", path)
    assert again.exit_code == 1
    assert "exists" in again.output
    assert "ci-image" in run("list", "--file", path).output
    assert run("remove", "ci-image", "--file", path).exit_code == 0
    assert read_honeytokens(str(path)) == ()
    assert run("remove", "ci-image", "--file", path).exit_code == 1
    assert run("create", "Bad Name", "--kind", "lease", "--file", path).exit_code == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "honeytoken"),
        ('{"version": 2, "honeytokens": []}', "version must be 1"),
        ('{"version": 1, "honeytokens": [], "more": 1}', "more"),
        ('{"version": 1, "honeytokens": [{"name": "a", "kind": "lease", "sha256": "xx", "create_wall_ms": 1}]}', "64"),
        ('{"version": 1, "honeytokens": [{"name": "a", "kind": "car", "sha256": "xx", "create_wall_ms": 1}]}', "car"),
        (
            json.dumps(
                {
                    "version": 1,
                    "honeytokens": [{"name": "A b", "kind": "lease", "sha256": "0" * 64, "create_wall_ms": 1}],
                }
            ),
            "name",
        ),
        (
            json.dumps(
                {
                    "version": 1,
                    "honeytokens": [{"name": "a", "kind": "lease", "sha256": "0" * 64, "create_wall_ms": 1}] * 2,
                }
            ),
            "one name",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_words(tmp_path, content, said):
    """Nothing of it is taken; the command and the sidecar say what is wrong."""
    path = tmp_path / "laid.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(FilesRefusedError, match=said):
        read_honeytokens(str(path))
    listed = run("list", "--file", path)
    assert listed.exit_code == 1
    assert said in listed.output


def test_a_file_that_others_may_write_is_refused(tmp_path):
    """It decides who is cut off."""
    path = tmp_path / "laid.json"
    run("create", "a", "--kind", "lease", "--file", path)
    path.chmod(0o622)
    with pytest.raises(FilesRefusedError, match="chmod go-w"):
        read_honeytokens(str(path))
