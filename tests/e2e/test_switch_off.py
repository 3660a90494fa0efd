"""`revoke --disable-upstream` at providers that can make a key inactive: AWS as moto serves it, and OpenRouter's API.

A real collector, the operators' command, the real minters; and what was done is undone at the provider afterwards.
"""

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.fakes.planted import MARKER
from tests.fakes.provider_admin.iam import IamAdmin
from tests.fakes.provider_admin.openrouter import OpenRouterAdmin
from tests.fakes.provider_admin.server import AnswerError, serving
from tests.fakes.provider_admin.worlds import AtAccessKeys, AtOpenRouter
from tests.fakes.rotation_stage import RotationStage

from leasehold.operators import OperatorClient
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.demo.stage import client
from leasehold_broker.domain.secret import Secret

pytestmark = [pytest.mark.timeout(240)]
KEY, ADMIN = "agents-test", "the-admin-key"
PROBES = frozenset({"/v1/models", "/api/v1/key"})


class _Served:
    """The harmless call, beside the admin API: a key that is switched off is refused."""

    def handle(self, request):
        """As its admin API; models for who has a living key."""
        if request.path not in PROBES:
            return super().handle(request)
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.taken():
            raise AnswerError(401, {"error": {"code": 401, "message": "no such key"}})
        return 200, {"data": []}


class ServedIam(_Served, IamAdmin):
    """What takes an access key; a stand-in."""


class ServedOpenRouter(_Served, OpenRouterAdmin):
    """OpenRouter, as far as it is needed here."""


class Stage(RotationStage):
    """The stage of rotations, with a key of this provider and the admin key beside it."""

    def __init__(self, root, origin, provider, at, first, admin):
        """Turn its files into those of another provider."""
        super().__init__(root, origin)
        text = (root / "collector.toml").read_text()
        text = text.replace('at = { minter = "exec", program = "mint.py" }', f"at = {{ {at} }}")
        text = text.replace("[providers.openai]", f"[providers.{provider}]")
        (root / "collector.toml").write_text(text.replace('key = "openai-test"', f'key = "{KEY}"'))
        store = LocalKeys(str(root / "keys.json"), FileMasterKey(str(root / "master.key")), SystemClock())
        store.add(KEY, provider, "test", Secret(first.encode()))
        store.add(ADMIN, provider, "test", Secret(admin.encode()))

    def revoke(self, *more):
        """The operators' command: exit code and lines."""
        done = subprocess.run(
            [*client("revoke", "--key", KEY, "--disable-upstream", *more), "--collector", self.centre],
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
            env=os.environ,
        )
        assert MARKER not in done.stdout + done.stderr
        return done.returncode, (done.stdout + done.stderr).splitlines()


@contextlib.contextmanager
def at_aws(moto):
    """An access key of moto's, the lines of its minter, and how the switch-off is undone."""
    world = AtAccessKeys(moto)
    world.fake = ServedIam(moto=moto)
    world.fake.taken = world.living
    made = world.users.create_access_key(world.user)
    with serving(world.fake) as origin:
        at = f'minter = "aws-access-key", user = "{world.user}", admin_key = "{ADMIN}", endpoint = "{origin}"'
        yield world, origin, "openai", at, (made.access_key_id, f"{made.access_key_id}:{made.secret_access_key}")


@contextlib.contextmanager
def at_openrouter(_moto):
    """The same for a key of OpenRouter's."""
    world = AtOpenRouter()
    world.fake = ServedOpenRouter()
    world.fake.taken = world.living
    with serving(world.fake) as origin:
        made = world.fake.add({"name": "made in the console"})
        at = f'minter = "openrouter", admin_key = "{ADMIN}", origin = "{origin}"'
        yield world, origin, "openrouter", at, made


@pytest.mark.parametrize("provider_of", [at_aws, at_openrouter])
def test_a_key_is_made_inactive_and_can_be_made_active_again(provider_of, moto_address):
    """The dry run says so and changes nothing; done, it is refused, audited, still there, and can be brought back."""
    with (
        tempfile.TemporaryDirectory(prefix="lh-") as folder,
        provider_of(moto_address) as (world, origin, provider, at, (key_id, value)),
    ):
        stage = Stage(Path(folder), origin, provider, at, value, world.admin_keys.value)
        with stage.process("collector"):
            code, said = stage.revoke("--dry-run")
            assert code == 0, said
            assert f"the key {key_id} would be made inactive at its provider, where it can be made active again" in said
            assert world.living() == [value]

            code, said = stage.revoke("--note", "in a paste")
            assert code == 0, said
            assert any(line.endswith(f"to disable {KEY} is done") for line in said)
            assert any(f"that the key {key_id} be made inactive at its provider" in line for line in said)
            assert world.living() == []
            events = stage.events("key.disab", KEY)
            assert (events[0]["type"], events[-1]["type"]) == ("key.disabling_started", "key.disabled_upstream")
            assert {event["details"]["switch_off"] for event in events} == {"inactive"}
            with OperatorClient(stage.centre, timeout_seconds=30) as operators:
                (issued,) = (record.event() for record in operators.events(type="revocation.issued"))
            told = {name: issued["details"][name] for name in ("disable_key", "disable_key_id", "disable_key_by")}
            assert told == {"disable_key": True, "disable_key_id": key_id, "disable_key_by": "inactive"}

            world.revive(key_id)
            assert world.living() == [value]
            code, said = stage.revoke("--dry-run", "--json")
            assert (code, json.loads(said[0])["switch_off"]) == (0, "inactive")
        files = [file for file in stage.root.rglob("*") if file.is_file()]
        assert all(MARKER.encode() not in file.read_bytes() for file in files)
        assert all(MARKER not in line for line in stage.said)
