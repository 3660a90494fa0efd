"""The power goes at any moment of a call: what the disk must hold by then is enough, whatever else it holds.

The same run as in the kills at every write, traced once. From the trace, disks are made as they may be found when the
power goes: with none, some or all sectors of what was not yet synced. Each is opened, held against what was served by
that moment, recovered, and looked at again.
"""

import asyncio
import os
import random
import shutil
from pathlib import Path

import pytest
from tests.unkind.kill9_child import CROWD_ROUNDS, WORKERS
from tests.unkind.power_loss import STRACE, SYNCS, Disk, read_trace
from tests.unkind.test_kill9 import Found, inspect
from tests.unkind.test_kill_at_every_write import STRACE as TOOL
from tests.unkind.test_kill_at_every_write import child, may_trace

EVERY = int(os.environ.get("POWER_LOSS_EVERY", "6"))
"""Every so many of the moments; 1: each. The whole is `make crash`."""
SEED = int(os.environ.get("POWER_LOSS_SEED", "5"))
KEPT = (0.0, 1.0, 0.5, 0.9)
pytestmark = [pytest.mark.skipif(TOOL is None, reason="strace is not installed"), pytest.mark.timeout(1800)]


def traced(tmp_path: Path, mode: str) -> tuple[Disk, Disk]:
    """The state directory over one run, and the folder of the file of served calls."""
    if not may_trace(tmp_path):
        pytest.skip("tracing is not permitted here")
    prepared, state, outside = tmp_path / "prepared", tmp_path / "state", tmp_path / "outside"
    outside.mkdir()
    assert child(prepared, tmp_path / "none", "prepare") == 0
    shutil.copytree(prepared, state)
    assert child(state, outside / "served", mode, "-o", str(tmp_path / "trace"), *STRACE) == 0
    steps = read_trace(tmp_path, "trace")
    return Disk.traced(prepared, state, steps), Disk({}, outside, [s for s in steps if s.path.parent == outside])


def look(state: Disk, outside: Disk, moment: float, share_kept: float, folder: Path) -> None:
    """Make the disk of that moment, and hold what is opened from it against what was served."""
    image, served = folder / "image", folder / "served"
    state.write_image(moment, image, random.Random(f"{SEED}/{share_kept}"), share_kept)
    # What a provider was told, it knows: no power goes there.
    served.write_bytes(b"".join(s.data for s in outside.steps if s.call == "write" and s.begin < moment))
    try:
        asyncio.run(inspect(image, served, Found()))
    finally:
        shutil.rmtree(image)


@pytest.mark.parametrize(("mode", "calls", "rarer"), [("one", 2, 1), ("crowd", CROWD_ROUNDS * WORKERS, 5)])
def test_b1_b5_b6_b9_a1_a7_hold_when_the_power_goes_at_any_moment_of_a_call(
    mode: str, calls: int, rarer: int, tmp_path: Path
) -> None:
    """B6: a served call is on the disk before; nothing is held after recovery; chain, replay and books agree."""
    state, outside = traced(tmp_path, mode)
    assert len([step for step in outside.steps if step.call == "write"]) == calls, "each call is served once"
    moments = [*state.moments()]
    tried = moments[:: 1 if EVERY == 1 else EVERY * rarer]
    for moment in tried:
        for share_kept in KEPT:
            look(state, outside, moment, share_kept, tmp_path)
    print(f"{mode}: {len(tried) * len(KEPT)} disks at {len(tried)} of {len(moments)} moments")  # noqa: T201 - shown with -rP


def test_b6_a_store_that_does_not_sync_is_noticed(tmp_path: Path) -> None:
    """The check can fail: with the syncs taken out of the trace, a call was served that no disk knows of."""
    state, outside = traced(tmp_path, "one")
    blind = Disk(state.before, state.directory, [step for step in state.steps if step.call not in SYNCS])
    served = max(step.end for step in outside.steps if step.call == "write")
    with pytest.raises(AssertionError, match="neither settled nor held"):
        look(blind, outside, served, 0.0, tmp_path)
