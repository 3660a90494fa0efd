"""The tests that run other people's programs: only where `make interop` has built or installed them."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def outsider() -> Path:
    """The program in tests/interop/outsider."""
    return _built("OUTSIDER")


def _built(name: str) -> Path:
    path = os.environ.get(name)
    if not path:
        pytest.skip(f"{name} names no program: run 'make interop'")
    return Path(path)
