"""The local store under a master key that never leaves a real OpenBao."""

import uuid

import pytest
from click.testing import CliRunner
from tests.fakes.manual_clock import ManualClock
from tests.fakes.planted import planted

from leasehold_broker.adapters.keys_document import KeyStoreError
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey, MasterKeyError
from leasehold_broker.adapters.vault_session import VaultAt, VaultAuth, VaultMethod
from leasehold_broker.adapters.vault_transit import TransitMasterKey
from leasehold_broker.cli import main
from leasehold_broker.domain.secret import Secret

VALUE = Secret(planted("under-transit").encode())


@pytest.fixture
def transit(bao, tmp_path):
    """Makes master keys at a Transit engine with two keys."""
    mount = f"transit-{uuid.uuid4().hex}"
    bao.ask("POST", f"sys/mounts/{mount}", {"type": "transit"})
    for key in ("leasehold", "other"):
        bao.ask("POST", f"{mount}/keys/{key}", {})
    (tmp_path / "token").write_text("root-of-the-tests")
    auth = VaultAuth(VaultMethod.TOKEN, token_file=str(tmp_path / "token"))

    def make(key="leasehold", address=bao.address):
        return TransitMasterKey(VaultAt(address, auth), mount, key, ManualClock())

    return make


async def test_a_store_opens_with_it_alone(transit, tmp_path):
    """Made with one handle, opened with another; no other key and no file opens it."""
    path = str(tmp_path / "private" / "keys.json")
    LocalKeys.create(path, transit(), ManualClock()).add("a", "openai", "prod", VALUE)
    assert await LocalKeys(path, transit(), ManualClock()).secret("a") == VALUE
    with pytest.raises(KeyStoreError, match="'other'"):
        LocalKeys(path, transit("other"), ManualClock())
    with pytest.raises(KeyStoreError, match="kind 'vault-transit', not 'file'"):
        LocalKeys(path, FileMasterKey.create(str(tmp_path / "private" / "master.key")), ManualClock())
    with pytest.raises(MasterKeyError, match="kind 'file', not 'vault-transit'"):
        transit().unwrap(FileMasterKey(str(tmp_path / "private" / "master.key")).wrap(bytes(32)))


async def test_a_server_that_is_down_takes_nothing_away(bao, transit, tmp_path):
    """Sealed after the start: changes of the store are still read. A start while it is sealed is refused."""
    path, clock = str(tmp_path / "private" / "keys.json"), ManualClock()
    writer = LocalKeys.create(path, transit(), clock)
    running = LocalKeys(path, transit(), clock)
    bao.seal()
    try:
        writer.add("a", "openai", "prod", VALUE)
        clock.advance(2)
        assert await running.secret("a") == VALUE
        with pytest.raises(KeyStoreError, match="is sealed; unseal it"):
            LocalKeys(path, transit(), clock)
    finally:
        bao.unseal()


async def test_the_transit_key_may_be_rotated(bao, transit, tmp_path):
    """A store made under an older version of the Transit key opens after the key was rotated."""
    path = str(tmp_path / "private" / "keys.json")
    LocalKeys.create(path, transit(), ManualClock()).add("a", "openai", "prod", VALUE)
    bao.ask("POST", f"{transit()._mount}/keys/leasehold/rotate", {})
    assert await LocalKeys(path, transit(), ManualClock()).secret("a") == VALUE


def test_the_command_under_transit(bao, transit, tmp_path):
    """`keys init`, `add` and `list` with --transit-of: the key is stored under Vault's master key, and found again."""
    transit_mount = transit()._mount
    config, store = tmp_path / "sidecar.toml", tmp_path / "private" / "keys.json"
    login = f'login = {{ method = "token", token_file = "{tmp_path}/token" }}'
    config.touch(mode=0o600)
    config.write_text(
        f'[keys.transit]\naddress = "{bao.address}"\nmount = "{transit_mount}"\nkey = "leasehold"\n{login}\n'
    )

    def run(*arguments, value=None):
        where = ["--store", str(store), "--transit-of", str(config)]
        return CliRunner().invoke(main, ["keys", arguments[0], *where, *arguments[1:]], input=value)

    assert run("init").exit_code == 0
    added = run("add", "a", "--provider", "openai", "--environment", "prod", value=planted("under-transit") + "\n")
    assert added.exit_code == 0, added.output
    assert "openai" in run("list").output
    config.write_text("[keys]\n")
    assert "no usable [keys.transit]" in run("list").output
