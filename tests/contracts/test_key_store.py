"""One suite for every key store: in memory, the encrypted file, and each store elsewhere behind its bounded cache."""

import contextlib
import json
import uuid

import boto3
import pytest
from tests.fakes import cloud_stores
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_key_source import MemoryKeySource
from tests.fakes.memory_world import MemoryKeys
from tests.fakes.planted import MARKER, planted

from leasehold_broker.adapters.aws_client import AwsAt
from leasehold_broker.adapters.keys_aws import AwsKeyAt, AwsKeys
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.keys_vault import VaultKeyAt, VaultKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.vault_session import VaultAt, VaultAuth, VaultMethod
from leasehold_broker.domain.keys import KeyKind, KeyState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.flows.sourced_keys import KeyBounds, Listed, SourcedKeys

NAMES = ("anthropic-prod", "openai-prod")
LISTED = tuple(Listed(name, name.partition("-")[0], "prod") for name in NAMES)
BOUNDS = KeyBounds(refresh_seconds=30, stale_seconds_max=300)


class InMemory:
    """The fake that other tests use."""

    def __init__(self) -> None:
        """Start empty."""
        self.store = MemoryKeys()

    async def put(self, name, value):
        """Store or replace."""
        self.store.put(name, name.partition("-")[0], "prod", value)

    async def disable(self, name):
        """Mark."""
        self.store.disable(name)

    async def remove(self, name):
        """Forget."""
        del self.store.by_name[name]

    async def notice(self):
        """It sees at once."""


class InFile:
    """The encrypted file, changed by another process."""

    def __init__(self, folder):
        """Make a store, and open it twice."""
        self.clock = ManualClock()
        master = FileMasterKey.create(str(folder / "private" / "master.key"))
        path = str(folder / "private" / "keys.json")
        self.writer = LocalKeys.create(path, master, self.clock)
        self.store = LocalKeys(path, master, self.clock)

    async def put(self, name, value):
        """Store or replace."""
        known = self.writer.find(name) is not None
        self.writer.add(name, name.partition("-")[0], "prod", Secret(value.encode()), replacing=known)

    async def disable(self, name):
        """Mark."""
        self.writer.set_state(name, KeyState.DISABLED)

    async def remove(self, name):
        """Forget."""
        self.writer.remove(name)

    async def notice(self):
        """A running broker looks once a second."""
        self.clock.advance(2)


class Elsewhere:
    """A store elsewhere behind the cache: `notice` is what the end of the interval brings."""

    def __init__(self, source, put, disable, remove):
        """Join a source with the ways an operator changes it."""
        self.clock = ManualClock()
        self.store = SourcedKeys(source, LISTED, BOUNDS, self.clock, CountingEntropy())
        self._put, self._disable, self._remove = put, disable, remove

    async def put(self, name, value):
        """Store or replace."""
        self._put(name, value)

    async def disable(self, name):
        """Mark."""
        self._disable(name)

    async def remove(self, name):
        """Forget."""
        self._remove(name)

    async def notice(self):
        """Read once."""
        self.clock.advance(30)
        await self.store.refresh()


def in_memory_elsewhere():
    """A source in memory."""
    source = MemoryKeySource()
    return Elsewhere(
        source,
        source.put,
        lambda name: setattr(source.entries[name], "disabled", True),
        source.entries.pop,
    )


def in_vault(bao, folder):
    """Entries of a real OpenBao."""
    prefix, token = f"contract/{uuid.uuid4().hex}", folder / "token"
    token.write_text("root-of-the-tests")
    at = VaultAt(bao.address, VaultAuth(VaultMethod.TOKEN, token_file=str(token)))
    source = VaultKeys(at, "secret", {name: VaultKeyAt(f"{prefix}/{name}") for name in NAMES}, ManualClock())
    return Elsewhere(
        source,
        lambda name, value: bao.put(f"{prefix}/{name}", value=value),
        lambda name: bao.put(f"{prefix}/{name}", value=planted("still-here"), disabled="true"),
        lambda name: bao.forget(f"{prefix}/{name}"),
    )


def in_aws(moto_address, folder):
    """Secrets of AWS, as moto serves them, under a role by web identity."""
    prefix, token = f"contract/{uuid.uuid4().hex}", folder / "token"
    token.write_text("a.workload.token")
    operator = boto3.client(
        "secretsmanager",
        region_name="eu-central-1",
        endpoint_url=moto_address,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )

    def put(name, value):
        with contextlib.suppress(operator.exceptions.ResourceExistsException):
            operator.create_secret(Name=f"{prefix}/{name}", SecretString="{}")
        operator.put_secret_value(SecretId=f"{prefix}/{name}", SecretString=f'{{"key": "{value}"}}')

    at = AwsAt("eu-central-1", "arn:aws:iam::123456789012:role/leasehold", str(token), moto_address, moto_address)
    source = AwsKeys(at, {name: AwsKeyAt(f"{prefix}/{name}", "key") for name in NAMES})
    return Elsewhere(
        source,
        put,
        lambda name: operator.put_secret_value(
            SecretId=f"{prefix}/{name}", SecretString=json.dumps({"key": planted("still-here"), "disabled": True})
        ),
        lambda name: operator.delete_secret(SecretId=f"{prefix}/{name}", ForceDeleteWithoutRecovery=True),
    )


def in_cloud(secrets, store):
    """Google's or Azure's, as a fake serves it to the vendor's own library."""
    return Elsewhere(store(*NAMES), secrets.put, secrets.disable, secrets.remove)


@pytest.fixture
def cloud(request, tmp_path):
    """A fake of a cloud's secrets, its kind by the parameter of `kept`."""
    kind = request.node.callspec.params["kept"]
    with cloud_stores.google() if kind == "gcp" else cloud_stores.azure(tmp_path) as found:
        yield found


@pytest.fixture(params=["memory", "file", "elsewhere", "vault", "aws", "gcp", "azure"])
async def kept(request, tmp_path):
    """A store of each kind, and an operator's hands on what is in it."""
    match request.param:
        case "memory":
            kept = InMemory()
        case "file":
            kept = InFile(tmp_path)
        case "elsewhere":
            kept = in_memory_elsewhere()
        case "vault":
            kept = in_vault(request.getfixturevalue("bao"), tmp_path)
        case "aws":
            kept = in_aws(request.getfixturevalue("moto_address"), tmp_path)
        case "gcp" | "azure":
            kept = in_cloud(*request.getfixturevalue("cloud"))
    yield kept
    if isinstance(kept, Elsewhere):
        await kept.store.aclose()


async def refused(store, name):
    """The refusal for a key that is not handed out."""
    with pytest.raises(Refusal) as caught:
        await store.secret(name)
    return caught.value


async def test_a_key_is_served_with_its_public_part(kept):
    """What was stored comes back; the record names provider, environment and a version, and shows no secret."""
    await kept.put("anthropic-prod", planted("1"))
    await kept.notice()
    assert await kept.store.secret("anthropic-prod") == Secret(planted("1").encode())
    record = kept.store.find("anthropic-prod")
    assert (record.provider, record.environment, record.state) == ("anthropic", "prod", KeyState.ENABLED)
    assert record.kind is KeyKind.STORED
    assert record.version >= 1
    assert [each.name for each in kept.store.records()] == ["anthropic-prod"]
    assert MARKER not in f"{record!r}{kept.store!r}{vars(kept.store)!r}"


async def test_a_new_version_is_noticed(kept):
    """After a replacement and one interval the new value is served, under a higher version; others are untouched."""
    await kept.put("anthropic-prod", planted("1"))
    await kept.put("openai-prod", planted("other"))
    await kept.notice()
    before = kept.store.find("anthropic-prod").version
    other = kept.store.find("openai-prod")
    await kept.put("anthropic-prod", planted("2"))
    await kept.notice()
    assert await kept.store.secret("anthropic-prod") == Secret(planted("2").encode())
    assert kept.store.find("anthropic-prod").version > before
    assert kept.store.find("openai-prod") == other


async def test_a_disabled_key_is_refused(kept):
    """A key marked disabled is not handed out, and the reason says that somebody meant it."""
    await kept.put("anthropic-prod", planted("1"))
    await kept.notice()
    await kept.disable("anthropic-prod")
    await kept.notice()
    assert (await refused(kept.store, "anthropic-prod")).reason is Reason.KEY_DISABLED
    record = kept.store.find("anthropic-prod")
    assert record is None or record.state is KeyState.DISABLED


async def test_a_removed_key_is_gone(kept):
    """A key that its store no longer has is not handed out, nor listed."""
    await kept.put("anthropic-prod", planted("1"))
    await kept.notice()
    await kept.remove("anthropic-prod")
    await kept.notice()
    assert (await refused(kept.store, "anthropic-prod")).reason is Reason.KEY_UNAVAILABLE
    assert kept.store.find("anthropic-prod") is None
    assert kept.store.records() == ()


async def test_an_unknown_key_is_refused(kept):
    """A name that no store knows is refused with a sentence that names it."""
    refusal = await refused(kept.store, "never-heard-of")
    assert refusal.reason is Reason.KEY_UNAVAILABLE
    assert "never-heard-of" in refusal.message
