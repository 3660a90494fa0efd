"""One suite for the versions of a key: each step of a rotation shows what it did, and may be repeated at any time."""

import json
import uuid

import boto3
import pytest
from tests.fakes import cloud_stores
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_key_source import MemoryKeySource
from tests.fakes.planted import planted

from leasehold_broker.adapters.aws_client import AwsAt
from leasehold_broker.adapters.keys_aws import AwsKeyAt, AwsKeys
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.keys_local_admin import LocalKeyAdmin
from leasehold_broker.adapters.keys_vault import VaultKeyAt, VaultKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.vault_session import VaultAt, VaultAuth, VaultMethod
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_admin import KeyStage, KeyStages
from leasehold_broker.ports.key_source import SourceFault, SourceState

KEY = "anthropic-prod"
OLD, NEW, OTHER = Secret(planted("old").encode()), Secret(planted("new").encode()), Secret(planted("other").encode())


def in_memory():
    """The fake."""
    source = MemoryKeySource()
    source.put(KEY, planted("old"))
    return source


def in_vault(bao, folder):
    """A real OpenBao."""
    path, token = f"admin/{uuid.uuid4().hex}", folder / "token"
    token.write_text("root-of-the-tests")
    bao.put(path, value=planted("old"), owner="platform team")
    at = VaultAt(bao.address, VaultAuth(VaultMethod.TOKEN, token_file=str(token)))
    return VaultKeys(at, "secret", {KEY: VaultKeyAt(path)}, ManualClock())


def in_aws(moto_address, folder):
    """AWS, as moto serves it."""
    secret_id, token = f"admin/{uuid.uuid4().hex}", folder / "token"
    token.write_text("a.workload.token")
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    operator = boto3.client("secretsmanager", "eu-central-1", endpoint_url=moto_address, **credentials)
    operator.create_secret(Name=secret_id, SecretString=planted("old"))
    role = "arn:aws:iam::123456789012:role/leasehold"
    return AwsKeys(AwsAt("eu-central-1", role, str(token), moto_address, moto_address), {KEY: AwsKeyAt(secret_id)})


def in_file(folder):
    """The encrypted file."""
    folder.chmod(0o700)
    clock, master, path = ManualClock(), folder / "master.key", str(folder / "keys.json")
    FileMasterKey.create(str(master))
    LocalKeys.create(path, FileMasterKey(str(master)), clock).add(KEY, "anthropic", "prod", OLD)
    return LocalKeyAdmin(lambda: LocalKeys(path, FileMasterKey(str(master)), clock), clock)


@pytest.fixture
def in_cloud(request, tmp_path):
    """Google's or Azure's, as a fake serves it to the vendor's own library."""
    kind = request.node.callspec.params["admin"]
    with cloud_stores.google() if kind == "gcp" else cloud_stores.azure(tmp_path) as (secrets, store):
        secrets.put(KEY, planted("old"))
        yield store(KEY)


@pytest.fixture(params=["memory", "file", "vault", "aws", "gcp", "azure"])
async def admin(request, tmp_path):
    """A store of each kind with one key."""
    match request.param:
        case "memory":
            admin = in_memory()
        case "file":
            admin = in_file(tmp_path)
        case "vault":
            admin = in_vault(request.getfixturevalue("bao"), tmp_path)
        case "aws":
            admin = in_aws(request.getfixturevalue("moto_address"), tmp_path)
        case "gcp" | "azure":
            admin = request.getfixturevalue("in_cloud")
    yield admin
    await admin.aclose()


async def served(admin):
    """What readers get now."""
    return (await admin.read(KEY)).value


async def conflict(work):
    """The change is refused because another came between."""
    with pytest.raises(SourceFault) as caught:
        await work
    assert caught.value.state is SourceState.CONFLICT


async def test_a_rotation_step_by_step_each_done_twice(admin):
    """Pending is served to nobody, promote swaps, retire forgets; repeating a step, even late, changes nothing."""
    for _ in range(2):
        await admin.put_pending(KEY, NEW, "rotation-1")
        assert await served(admin) == OLD
        assert await admin.staged(KEY, KeyStage.PENDING) == NEW
        assert await admin.stages(KEY, "rotation-1") == KeyStages(mine=True, pending=True, previous=False)
        assert not (await admin.stages(KEY, "rotation-2")).mine
    for _ in range(2):
        await admin.promote(KEY, "rotation-1")
        assert await served(admin) == NEW
        assert await admin.staged(KEY, KeyStage.PREVIOUS) == OLD
        assert await admin.stages(KEY, "rotation-1") == KeyStages(mine=True, pending=False, previous=True)
    await admin.put_pending(KEY, OTHER, "rotation-1")
    assert not (await admin.stages(KEY, "rotation-1")).pending
    for _ in range(2):
        await admin.retire(KEY, "rotation-1")
        assert await served(admin) == NEW
        with pytest.raises(SourceFault) as caught:
            await admin.staged(KEY, KeyStage.PREVIOUS)
        assert caught.value.state in {SourceState.MISSING, SourceState.CONFLICT}
    await admin.promote(KEY, "rotation-1")
    assert await served(admin) == NEW


async def test_two_rotations_never_mix(admin):
    """While one rotation's value is pending another puts, promotes and retires nothing."""
    await admin.put_pending(KEY, NEW, "rotation-1")
    await conflict(admin.put_pending(KEY, OTHER, "rotation-2"))
    await conflict(admin.promote(KEY, "rotation-2"))
    await conflict(admin.retire(KEY, "rotation-2"))
    assert await admin.staged(KEY, KeyStage.PENDING) == NEW
    assert await served(admin) == OLD


async def test_the_first_pending_value_stays(admin):
    """A second put by the same rotation keeps the first value: a minted key is never lost to a repeated step."""
    await admin.put_pending(KEY, NEW, "rotation-1")
    await admin.put_pending(KEY, OTHER, "rotation-1")
    assert await admin.staged(KEY, KeyStage.PENDING) == NEW


async def test_a_rotation_that_was_given_up_leaves_the_old_key(admin):
    """Retired before it was promoted: the old key serves, and a late promote is refused; the next rotation works."""
    await admin.put_pending(KEY, NEW, "rotation-1")
    await admin.retire(KEY, "rotation-1")
    assert await served(admin) == OLD
    assert await admin.stages(KEY, "rotation-1") == KeyStages(mine=False, pending=False, previous=False)
    await conflict(admin.promote(KEY, "rotation-1"))
    await admin.put_pending(KEY, OTHER, "rotation-2")
    await admin.promote(KEY, "rotation-2")
    assert await served(admin) == OTHER


async def test_retiring_what_was_never_begun_does_nothing(admin):
    """Whoever gives up may not know how far it came."""
    await admin.retire(KEY, "rotation-1")
    assert await served(admin) == OLD
    assert await admin.stages(KEY, "rotation-1") == KeyStages(mine=False, pending=False, previous=False)


async def test_a_rotation_after_one_that_is_done(admin):
    """The next one begins where the last one ended."""
    for number, value in enumerate((NEW, OTHER)):
        await admin.put_pending(KEY, value, f"rotation-{number}")
        await admin.promote(KEY, f"rotation-{number}")
        await admin.retire(KEY, f"rotation-{number}")
        assert await served(admin) == value
    assert not (await admin.stages(KEY, "rotation-0")).mine


async def test_the_old_value_is_destroyed_at_vault(bao, tmp_path):
    """After retire no version of the entry holds the old value, and what else was in the entry is kept."""
    admin = in_vault(bao, tmp_path)
    path = admin._keys[KEY].path
    await admin.put_pending(KEY, NEW, "rotation-1")
    await admin.promote(KEY, "rotation-1")
    await admin.retire(KEY, "rotation-1")
    await admin.aclose()
    now = bao.ask("GET", f"secret/data/{path}")["data"]
    assert now["data"] == {"value": planted("new"), "owner": "platform team", "rotation": "rotation-1"}
    versions = bao.ask("GET", f"secret/metadata/{path}")["data"]["versions"]
    assert {number for number, each in versions.items() if not each["destroyed"]} == {str(now["metadata"]["version"])}


async def test_a_change_by_another_hand_is_not_overwritten(bao, tmp_path, monkeypatch):
    """An operator writes between our reading and our writing: check-and-set refuses ours."""
    admin = in_vault(bao, tmp_path)
    path = admin._keys[KEY].path
    entry = admin._entry

    def read_then_changed(name):
        found = entry(name)
        bao.put(path, value=planted("by-hand"))
        return found

    monkeypatch.setattr(admin, "_entry", read_then_changed)
    await conflict(admin.put_pending(KEY, NEW, "rotation-1"))
    monkeypatch.undo()
    assert await served(admin) == Secret(planted("by-hand").encode())
    await admin.aclose()


async def test_a_running_sidecar_serves_from_the_file_what_was_promoted(tmp_path):
    """Another reader of the file sees the new value and a higher version within its second, and no staged value."""
    admin, clock = in_file(tmp_path), ManualClock()
    reader = LocalKeys(str(tmp_path / "keys.json"), FileMasterKey(str(tmp_path / "master.key")), clock)
    await admin.put_pending(KEY, NEW, "rotation-1")
    clock.advance(2)
    assert (reader.find(KEY).version, await reader.secret(KEY)) == (1, OLD)
    await admin.promote(KEY, "rotation-1")
    clock.advance(2)
    assert (reader.find(KEY).version, await reader.secret(KEY)) == (2, NEW)
    assert (await admin.read(KEY)).number == 2
    await admin.aclose()


async def test_a_change_by_hand_in_the_file_ends_the_rotation(tmp_path):
    """An operator's --replace wins: nothing of the rotation is left, no version is used twice."""
    admin = in_file(tmp_path)
    store = LocalKeys(str(tmp_path / "keys.json"), FileMasterKey(str(tmp_path / "master.key")), ManualClock())
    await admin.put_pending(KEY, NEW, "rotation-1")
    assert store.add(KEY, "anthropic", "prod", OTHER, replacing=True).version == 3
    await conflict(admin.promote(KEY, "rotation-1"))
    assert await served(admin) == OTHER
    await admin.aclose()


async def test_a_staged_value_cannot_change_places_in_the_file(tmp_path):
    """Who swaps the pending and the serving value in the file is found out, as with any other change of it."""
    admin, path = in_file(tmp_path), tmp_path / "keys.json"
    await admin.put_pending(KEY, NEW, "rotation-1")
    content = json.loads(path.read_text())
    entry = content["keys"][0]
    entry["sealed"], entry["pending"]["sealed"] = entry["pending"]["sealed"], entry["sealed"]
    path.write_text(json.dumps(content))
    with pytest.raises(SourceFault, match="altered") as caught:
        await admin.read(KEY)
    assert caught.value.state is SourceState.FAILING
    await admin.aclose()
