"""Tables of deploy/keys/minters.toml: accepted, with every setting named, each with a line in the page beside it."""

import re
import tomllib
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from leasehold_broker.config.minters import Minter, wrong_minter

FOLDER = Path(__file__).parents[2] / "deploy" / "keys"
TABLES = tomllib.loads((FOLDER / "minters.toml").read_text())


@pytest.mark.parametrize("name", TABLES)
def test_each_table_is_accepted_and_names_every_setting(name):
    """As it stands, with nothing left out and nothing to say against it."""
    minter = msgspec.convert(TABLES[name], Minter, strict=True)
    assert wrong_minter(minter) == []
    assert set(TABLES[name]) - {"minter"} == set(minter.__struct_fields__)


def test_every_minter_has_a_table_and_a_line_in_the_page():
    """What can be configured is explained."""
    known = {kind.__struct_config__.tag for kind in get_args(Minter)}
    assert {table["minter"] for table in TABLES.values()} == known
    assert set(re.findall(r"^\| `([a-z-]+)` \|", (FOLDER / "minters.md").read_text(), re.MULTILINE)) == known
