"""The own credential of a database engine is replaced by a real collector: OpenBao and PostgreSQL are real as well."""

import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.fakes.bao_root import FIRST, KEY, BaoRoot
from tests.fakes.rotating_provider import rotating_provider
from tests.fakes.rotation_stage import RotationStage

from leasehold.operators import OperatorClient
from leasehold_broker.demo.stage import client

pytestmark = [pytest.mark.timeout(240)]
TABLES = """
[[keys.engines]]
environment = "test"
address = "{address}"
token_role = "{mount}"
login = {{ method = "token", token_file = "{reader}" }}
keys = [{{ name = "{key}", provider = "own-postgres", path = "{mount}/creds/orders" }}]

[[rotations]]
key = "{key}"
at.minter = "vault-root"
at.path = "{mount}/rotate-root/main"
at.login = {{ method = "token", token_file = "{rotator}" }}
limits = {{ mint_seconds = 3 }}
"""


@pytest.fixture
def engine(bao, postgres):
    """An engine, and a collector that rotates what it stands on."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder, rotating_provider() as (_, origin):
        root = Path(folder)
        root.chmod(0o700)
        engine = BaoRoot(bao, postgres, root)
        tables = TABLES.format(
            address=bao.address, mount=engine.mount, reader=engine.reader, rotator=engine.rotator, key=KEY
        )
        stage = RotationStage(root, origin, more=tables)
        with stage.process("collector"):
            yield engine, stage


def rotate(stage, *more):
    """`leasehold keys rotate --watch`."""
    command = client("keys", "rotate", KEY, "--watch", "--collector", stage.centre, *more)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def types(stage):
    """Of the rotation's events, in order."""
    with OperatorClient(stage.centre, timeout_seconds=30) as asking:
        return [record.event()["type"] for record in asking.events(key=KEY)]


def test_the_credential_of_an_engine_is_rotated(engine):
    """The first password is refused, the engine makes users, and none is left of those it was tried with."""
    world, stage = engine
    done = rotate(stage, "--note", "first password")
    assert done.returncode == 0, done.stderr
    assert "is done" in done.stdout
    assert not world.taken(FIRST)
    credential = world.bao.ask("GET", f"{world.mount}/creds/orders")
    assert world.users() == [credential["data"]["username"]]
    assert types(stage)[-1] == "key.rotation_done"
    assert FIRST not in "".join(stage.said)


def test_an_engine_that_does_not_work_is_not_rotated_and_somebody_is_told(engine):
    """The database refuses its login: failed, and the first password is what it was."""
    world, stage = engine
    world.lock_out()
    failed = rotate(stage)
    assert failed.returncode == 3
    assert types(stage)[-1] == "key.rotation_failed"
    world.postgres.sql(f"ALTER ROLE {world.user} LOGIN")
    assert world.taken(FIRST)
