"""Every dependency is pinned with hashes, and none is older than the fix of an advisory that we know of."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.version import Version

FOLDER = Path(__file__).resolve().parents[2] / "requirements"
FLOORS = tomllib.loads((FOLDER / "floors.toml").read_text())
SETS = sorted(FOLDER.glob("*.txt"))
# Extras stay named: without them an older pip takes the newest release for the extra, and then finds it has no hash.
PIN = re.compile(r"^([a-z0-9._-]+)(?:\[[a-z,-]+\])?==([^ ;\\]+)", re.MULTILINE)


def pins(path):
    """Versions by name."""
    return {name: Version(version) for name, version in PIN.findall(path.read_text())}


def too_old(pinned):
    """What is refused, or below its floor, with the reason."""
    return {
        name: floor["why"]
        for name, floor in FLOORS.items()
        if name in pinned and (floor.get("refused") or pinned[name] < Version(floor["at_least"]))
    }


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.name)
def test_nothing_is_below_its_floor(path):
    """In each compiled set."""
    assert too_old(pins(path)) == {}


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.name)
def test_everything_is_pinned_with_hashes_and_without_addresses(path):
    """Each requirement is one exact version with at least one hash; no index, link or checkout is named."""
    blocks = re.split(r"\n(?=[a-z0-9])", path.read_text().strip())
    assert [block[:60] for block in blocks if not PIN.match(block) or "--hash=sha256:" not in block] == []
    assert "://" not in path.read_text()
    assert len(blocks) == len(PIN.findall(path.read_text()))


def test_the_check_would_see_an_old_version():
    """Positive control."""
    assert {"pyjwt", "litellm"} == set(
        too_old({"pyjwt": Version("2.12.1"), "litellm": Version("9"), "aiohttp": Version("3.14")})
    )
