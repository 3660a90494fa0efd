"""What runs of minutes and hours have in common, and who can run programs as other users."""

import time
from collections.abc import Callable

import pytest
from tests.unkind.other_users import interpreter

TOLD_SECONDS = 10.0


@pytest.fixture
def progress(request) -> Callable[[str], None]:
    """Says how far a long run is, past pytest's capture, every ten seconds at most; a short run says nothing."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    began = told = time.monotonic()

    def say(where: str) -> None:
        nonlocal told
        if time.monotonic() - told < TOLD_SECONDS or capture is None:
            return
        told = time.monotonic()
        with capture.global_and_fixture_disabled():
            print(f"\n{request.node.name}: {where}, {told - began:.0f} s", end=" ", flush=True)  # noqa: T201

    return say


@pytest.fixture(scope="session")
def other_users() -> None:
    """Skip where no program can be run as another user."""
    if not interpreter():
        pytest.skip("becoming other users needs root and a readable checkout")
