"""A collector killed again and again while it rotates: one working key always, none minted twice, no value anywhere.

ROTATE_KILLS=120 (make rotate-crash) does it so often; ROTATE_SEED chooses when.
"""

import os
import random
import tempfile
import time
from pathlib import Path

import pytest
from tests.fakes.planted import MARKER
from tests.fakes.rotating_provider import rotating_provider
from tests.fakes.rotation_stage import KEY, RotationStage

from leasehold.v1 import key_service_pb2 as pb

KILLS = int(os.environ.get("ROTATE_KILLS", "4"))
SEED = int(os.environ.get("ROTATE_SEED", "7"))
LIFE_SECONDS = (0.0, 4.0)
WATCH_SECONDS = 120
pytestmark = [pytest.mark.timeout(120 + 20 * KILLS)]


def check(account, stage):
    """The key that the store serves works at the provider, and no rotation has two."""
    assert account.lives(stage.serving_value())
    marks = [key.mark for key in account.alive() if key.mark]
    assert len(marks) == len(set(marks))


def test_a_collector_that_is_killed_while_it_rotates(progress):
    """Killed at random moments, it resumes; at the end every rotation is done, and only the last key is alive."""
    chance = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="lh-") as folder, rotating_provider() as (account, origin):
        stage = RotationStage(Path(folder), origin)
        for kill in range(KILLS):
            progress(f"{kill} of {KILLS} kills, {account.minted} keys minted")
            with stage.process("collector") as process:
                with stage.custodian() as client:
                    client.rotate(KEY)
                time.sleep(chance.uniform(*LIFE_SECONDS))
                process.kill()
                process.wait(30)
            check(account, stage)
        with stage.process("collector"), stage.custodian() as client:
            asked = client.rotate(KEY)
            assert list(client.watch(asked.name, WATCH_SECONDS))[-1].state == pb.ROTATION_STATE_DONE
            rotations = list(client.rotations())
            assert {each.state for each in rotations} == {pb.ROTATION_STATE_DONE}
            check(account, stage)
            assert [key.value for key in account.alive()] == [stage.serving_value()]
            done = [event for event in stage.events() if event["type"] == "key.rotation_done"]
            assert len(done) == len(rotations)
            # A mint whose answer died with the process is ended by the next one, so more may be made than rotations.
            print(f"kills={KILLS} rotations={len(rotations)} minted={account.minted} alive={len(account.alive())}")  # noqa: T201
        texts = [file.read_bytes() for file in stage.root.rglob("*") if file.is_file()]
        assert all(MARKER.encode() not in text for text in [*texts, "".join(stage.said).encode()])
