"""The tables of minters: what is refused, and that files are found from the configuration's own folder."""

from pathlib import Path

import msgspec
import pytest

from leasehold_broker.config.minters import ExecMinter, Minter, OpenAIMinter, minter_at, wrong_minter


def read(**table) -> Minter:
    """A table as it is read."""
    return msgspec.convert(table, Minter, strict=True)


def test_a_minter_is_told_by_its_name():
    """The tag says which table it is; unknown keys are refused."""
    assert read(minter="openai", admin_key="a", project="p") == OpenAIMinter("a", "p")
    with pytest.raises(msgspec.ValidationError):
        read(minter="openai", admin_key="a", project="p", admin_key_value="sk-no")
    with pytest.raises(msgspec.ValidationError):
        read(minter="unknown")


def test_a_program_is_found_from_the_folder_of_the_file():
    """As every other path."""
    found = minter_at(ExecMinter("bin/mint"), Path("/etc/leasehold"))
    assert isinstance(found, ExecMinter)
    assert found.program == "/etc/leasehold/bin/mint"
    kept = OpenAIMinter("a", "p")
    assert minter_at(kept, Path("/etc/leasehold")) is kept


@pytest.mark.parametrize(
    ("minter", "words"),
    [
        (OpenAIMinter("", "p"), "admin_key is empty"),
        (OpenAIMinter("a", ""), "project is empty"),
        (OpenAIMinter("a", "p", origin="http://example.com"), "in the clear"),
        (OpenAIMinter("a", "p", origin="https://example.com/path"), "nothing more"),
        (ExecMinter("x", seconds_max=0), "seconds_max"),
        (ExecMinter("x", seconds_max=float("nan")), "seconds_max"),
        (ExecMinter("x", seconds_max=601), "seconds_max"),
        (ExecMinter(""), "program is empty"),
    ],
)
def test_what_is_wrong_is_said(minter, words):
    """Each by the name of its key."""
    assert any(words in wrong for wrong in wrong_minter(minter))


@pytest.mark.parametrize("minter", [OpenAIMinter("a", "p"), ExecMinter("/bin/true")])
def test_what_is_right_is_taken(minter):
    """Nothing to say."""
    assert wrong_minter(minter) == []
