"""The console in a real browser: signing in, hostile markup in the live log, a revocation watched live, signing out.

`make browser` installs what drives it; the browser itself is Debian's chromium. Without either the test is skipped.
"""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from tests.console.conftest import provider, world
from tests.console.test_console import MARKUP
from tests.fakes.centre import eventually
from tests.fakes.streams import call_event

from leasehold_broker.domain.revocation_progress import LiveLease

__all__ = ["provider", "world"]
HOME = Path(__file__).parents[1] / "fakes" / "chromium"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not CHROMIUM or not (HOME / "node_modules" / "playwright-core").exists(),
        reason="no chromium, or nothing to drive it with: make browser",
    ),
]


async def write_markup(sidecar) -> None:
    """Until cancelled: the log is followed from some moment on, which nobody here knows."""
    while True:
        sidecar.outbox.put(sidecar.emitter.emit(call_event(1, lease=MARKUP, key=MARKUP, subject=MARKUP)))
        await asyncio.sleep(0.5)


async def test_somebody_at_the_console(world):
    """Every step is seen by the browser; no policy was violated, nothing fetched elsewhere, no markup obeyed."""
    world.provider.control(subject="ada@example", groups=["responders"])
    pipe = asyncio.subprocess.PIPE
    steps = []
    async with world.sidecar() as sidecar:
        sidecar.leases = [LiveLease("leases/1", "", "leases/1", "https://i", "agents/1", "prod", (), ("openai",))]
        await eventually(lambda: sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None)
        browser = await asyncio.create_subprocess_exec(
            *("node", "console.mjs", CHROMIUM, world.origin, "ada@example"), cwd=HOME, stdout=pipe, stderr=pipe
        )
        while line := (await browser.stdout.readline()).decode().strip():
            steps.append(line)
            if line == "tail":
                writing = asyncio.create_task(write_markup(sidecar))
            if line == "markup is text":
                writing.cancel()
        trouble = (await browser.stderr.read()).decode()
        assert await browser.wait() == 0, f"after {steps}: {trouble}"
    *seen, said = steps
    assert seen == ["signed in", "tail", "markup is text", "revoked", "seen in the log", "signed out"]
    assert json.loads(said) == {"violations": [], "errors": [], "elsewhere": [], "dialogs": [], "images": 0}
    (issued,) = await world.events("revocation.issued")
    assert issued["subject"]["subject"] == "ada@example"
