"""The encrypted key store: what is in the file, what it proves, and what a running broker notices."""

import json
import os
import subprocess
import sys
import traceback

import pytest
from tests.fakes.manual_clock import ManualClock
from tests.fakes.planted import planted

from leasehold_broker.adapters.keys_document import KeyStoreError
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey, MasterKeyError, PassphraseMasterKey, WrappedKey
from leasehold_broker.adapters.private_files import create_private
from leasehold_broker.domain.keys import KeyState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret

PLANTED = planted("1234567890-abcdefghij", "sk-ant-")


@pytest.fixture
def clock():
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def master(tmp_path):
    """A master key in a file."""
    return FileMasterKey.create(str(tmp_path / "private" / "master.key"))


@pytest.fixture
def store(tmp_path, master, clock):
    """A store with one key."""
    store = LocalKeys.create(str(tmp_path / "private" / "keys.json"), master, clock)
    store.add("anthropic-prod", "anthropic", "production", Secret(PLANTED.encode()))
    return store


def path_of(tmp_path):
    """The store's file."""
    return tmp_path / "private" / "keys.json"


def edit(path, change):
    """Change the file's JSON in place."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


async def reason(store, name="anthropic-prod"):
    """The reason for which the key is not handed out."""
    with pytest.raises(Refusal) as caught:
        await store.secret(name)
    assert PLANTED not in f"{caught.value!r}{caught.value.detail}"
    return caught.value.reason


async def test_value_comes_back_and_is_nowhere_else(tmp_path, master, store, clock):
    """The planted key is in no file of the folder and in no text of the store; a fresh opening reads it."""
    again = LocalKeys(str(path_of(tmp_path)), master, clock)
    assert Secret(PLANTED.encode()) == await again.secret("anthropic-prod")
    record = again.find("anthropic-prod")
    assert record == store.records()[0]
    assert (record.version, record.state, record.created_wall_ms) == (1, KeyState.ENABLED, clock.wall_ms)
    for file in path_of(tmp_path).parent.iterdir():
        assert PLANTED.encode() not in file.read_bytes()
        assert (file.stat().st_mode & 0o777) == 0o600
    assert PLANTED not in f"{again!r}{vars(again)!r}{again._opened!r}{record!r}"


async def test_versions_states_and_removal(store):
    """Replacing raises the version and keeps the state; disabled and removed keys are not handed out."""
    with pytest.raises(KeyStoreError, match="say --replace"):
        store.add("anthropic-prod", "anthropic", "production", Secret(b"x"))
    with pytest.raises(KeyStoreError, match="a replacement keeps both"):
        store.add("anthropic-prod", "anthropic", "staging", Secret(b"x"), replacing=True)
    with pytest.raises(KeyStoreError, match="leave out --replace"):
        store.add("other", "anthropic", "production", Secret(b"x"), replacing=True)
    store.set_state("anthropic-prod", KeyState.DISABLED)
    assert await reason(store) is Reason.KEY_DISABLED
    replaced = store.add("anthropic-prod", "anthropic", "production", Secret(b"second"), replacing=True)
    assert (replaced.version, replaced.state) == (2, KeyState.DISABLED)
    store.set_state("anthropic-prod", KeyState.ENABLED)
    assert Secret(b"second") == await store.secret("anthropic-prod")
    store.remove("anthropic-prod")
    assert await reason(store) is Reason.KEY_UNAVAILABLE
    with pytest.raises(KeyStoreError, match="it holds: none"):
        store.remove("anthropic-prod")


@pytest.mark.parametrize(
    ("name", "provider", "environment"),
    [("", "openai", "p"), ("A", "openai", "p"), ("a/b", "openai", "p"), ("a", "other", "p"), ("a", "openai", "P rod")],
)
def test_names_that_are_refused(store, name, provider, environment):
    """Names stay within a small alphabet, providers within the known ones."""
    with pytest.raises(KeyStoreError):
        store.add(name, provider, environment, Secret(b"x"))


async def test_running_broker_notices_within_a_second(tmp_path, master, store, clock):
    """A key that another process disables is refused by a running store after its next look."""
    running = LocalKeys(str(path_of(tmp_path)), master, clock)
    await running.secret("anthropic-prod")
    store.set_state("anthropic-prod", KeyState.DISABLED)
    await running.secret("anthropic-prod")
    clock.advance(1)
    assert await reason(running) is Reason.KEY_DISABLED
    store.add("openai-prod", "openai", "production", Secret(b"o"))
    clock.advance(1)
    assert running.find("openai-prod") is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["keys"][0].update(state="disabled"),
        lambda d: d["keys"][0].update(environment="staging"),
        lambda d: d["keys"][0].update(provider="openai"),
        lambda d: d["keys"][0].update(name="other"),
        lambda d: d["keys"][0].update(version=2),
        lambda d: d["keys"][0].update(created_wall_ms=0),
        lambda d: d["keys"].pop(),
        lambda d: d["keys"].append(dict(d["keys"][0], name="twin")),
        lambda d: d.update(generation=99),
        lambda d: d.update(store_id="0" * 32),
        lambda d: d["master"].update(other=1),
        lambda d: d.update(mac="AAAA"),
        lambda d: d["keys"][0].update(sealed=d["keys"][0]["nonce"]),
    ],
)
def test_any_change_of_the_file_shows(tmp_path, master, store, clock, change):
    """A changed state, name, wall, version, count or a missing entry makes the file unusable."""
    edit(path_of(tmp_path), change)
    with pytest.raises(KeyStoreError, match="was altered"):
        LocalKeys(str(path_of(tmp_path)), master, clock)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff", b'{"format":"leasehold-keys/1"}', b"[" * 5000]
)
def test_damaged_file(tmp_path, master, store, clock, content):
    """A file that is no store says so."""
    path_of(tmp_path).write_bytes(content)
    with pytest.raises(KeyStoreError, match="not a key store, or was damaged"):
        LocalKeys(str(path_of(tmp_path)), master, clock)


async def test_swapped_entries_do_not_open(tmp_path, store):
    """Even past the proof, a sealed value in another entry's place does not decrypt."""
    store.add("openai-prod", "openai", "production", Secret(b"other"))
    document = store._opened.document
    first, second = document.entries
    swapped = type(first)(first.record, second.nonce, second.sealed)
    store._opened = type(store._opened)(document.with_entry(swapped), store._opened.cipher, store._opened.mac_key)
    assert await reason(store) is Reason.KEY_UNAVAILABLE


async def test_older_copy_under_a_running_broker(tmp_path, master, store, clock):
    """An older copy put back is refused by a running store, which says so once and recovers with the latest."""
    path = path_of(tmp_path)
    old = path.read_bytes()
    store.set_state("anthropic-prod", KeyState.DISABLED)
    said = []
    running = LocalKeys(str(path), master, clock, said.append)
    latest = path.read_bytes()
    path.write_bytes(old)
    for _ in range(3):
        clock.advance(1)
        assert await reason(running) is Reason.KEY_UNAVAILABLE
    with pytest.raises(Refusal, match="the key store cannot be read"):
        running.records()
    assert running.find("anthropic-prod") is None
    assert ["older copy" in text for text in said] == [True]
    path.write_bytes(latest)
    clock.advance(1)
    assert await reason(running) is Reason.KEY_DISABLED


async def test_file_that_vanishes_under_a_running_broker(tmp_path, master, store, clock):
    """Without its file a running store hands out nothing."""
    running = LocalKeys(str(path_of(tmp_path)), master, clock)
    await running.secret("anthropic-prod")
    path_of(tmp_path).unlink()
    clock.advance(1)
    assert await reason(running) is Reason.KEY_UNAVAILABLE


def test_wrong_master_key(tmp_path, store, clock):
    """Another master key does not open the store."""
    other = FileMasterKey.create(str(tmp_path / "private" / "other.key"))
    with pytest.raises(KeyStoreError, match="is not the one this store was made with"):
        LocalKeys(str(path_of(tmp_path)), other, clock)


async def test_passphrase(tmp_path, clock):
    """A passphrase opens its store, another does not, and altered parameters are bounded before they cost anything."""
    path = tmp_path / "private" / "keys.json"
    store = LocalKeys.create(str(path), PassphraseMasterKey(b"correct horse battery"), clock)
    store.add("a", "openai", "p", Secret(b"value"))
    again = LocalKeys(str(path), PassphraseMasterKey(b"correct horse battery"), clock)
    assert Secret(b"value") == await again.secret("a")
    with pytest.raises(KeyStoreError, match="the passphrase is not the one"):
        LocalKeys(str(path), PassphraseMasterKey(b"correct horse bottery"), clock)
    with pytest.raises(KeyStoreError, match="kind 'passphrase', not 'file'"):
        LocalKeys(str(path), FileMasterKey.create(str(tmp_path / "private" / "m")), clock)
    parameters = json.loads(path.read_text())["master"]
    for forged in ({"memory_kib": 2**31}, {"iterations": 10**9}, {"memory_kib": 8}, {"salt": "zz"}, {"lanes": "4"}):
        wrapped = WrappedKey({**parameters, **forged}, bytes(40))
        with pytest.raises(MasterKeyError, match="altered"):
            PassphraseMasterKey(b"correct horse battery").unwrap(wrapped)
    with pytest.raises(MasterKeyError, match="12 to 1024"):
        PassphraseMasterKey(b"short")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o666])
def test_files_that_others_can_use(tmp_path, master, store, clock, mode):
    """A store or master key that others may read or write does not open."""
    path_of(tmp_path).chmod(mode)
    with pytest.raises(KeyStoreError, match="run chmod 600 on it"):
        LocalKeys(str(path_of(tmp_path)), master, clock)
    (tmp_path / "private" / "master.key").chmod(mode)
    with pytest.raises(MasterKeyError, match="run chmod 600 on it"):
        FileMasterKey(str(tmp_path / "private" / "master.key"))


def test_folder_that_others_can_write(tmp_path, master, store, clock):
    """A store in a folder that others may write to does not open, nor is one made there."""
    (tmp_path / "private").chmod(0o777)
    with pytest.raises(KeyStoreError, match="run chmod 700 on it"):
        LocalKeys(str(path_of(tmp_path)), master, clock)
    with pytest.raises(KeyStoreError, match="run chmod 700 on it"):
        LocalKeys.create(str(tmp_path / "private" / "more.json"), master, clock)


def test_nothing_is_overwritten(tmp_path, master, store, clock):
    """Neither a store nor a master key is made where one is."""
    with pytest.raises(KeyStoreError, match="never overwritten"):
        LocalKeys.create(str(path_of(tmp_path)), master, clock)
    with pytest.raises(MasterKeyError, match="never overwritten"):
        FileMasterKey.create(str(tmp_path / "private" / "master.key"))


@pytest.mark.parametrize("content", [b"", b"c2hvcnQ=", b"!!!", b"x" * 300])
def test_files_that_are_no_master_key(tmp_path, content):
    """Anything but 32 bytes as base64 is refused."""
    create_private(tmp_path / "m", content)
    with pytest.raises(MasterKeyError):
        FileMasterKey(str(tmp_path / "m"))


async def test_writer_that_died(tmp_path, master, store, clock):
    """What a writer left behind before its rename changes nothing, and the next writer removes it."""
    left = tmp_path / "private" / ".keys.json.0123.new"
    left.write_bytes(b"half")
    assert Secret(PLANTED.encode()) == await LocalKeys(str(path_of(tmp_path)), master, clock).secret("anthropic-prod")
    store.set_state("anthropic-prod", KeyState.ENABLED)
    assert not left.exists()


def test_writers_at_once(tmp_path, master, store):
    """Processes that add keys at the same time lose none of them."""
    program = (
        "import sys\n"
        "from leasehold_broker.adapters.keys_local import LocalKeys\n"
        "from leasehold_broker.adapters.master_keys import FileMasterKey\n"
        "from leasehold_broker.adapters.system_clock import SystemClock\n"
        "from leasehold_broker.domain.secret import Secret\n"
        "store = LocalKeys(sys.argv[1], FileMasterKey(sys.argv[2]), SystemClock())\n"
        "for number in range(5):\n"
        "    store.add(f'k{sys.argv[3]}-{number}', 'openai', 'p', Secret(b'v'))\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path_of(tmp_path)), str(tmp_path / "private" / "master.key"), str(who)]
        )
        for who in range(4)
    ]
    assert [process.wait(60) for process in running] == [0] * 4
    fresh = LocalKeys(str(path_of(tmp_path)), master, ManualClock())
    assert len(fresh.records()) == 21
    assert fresh._opened.document.generation == 22


def test_failure_while_writing_shows_no_value(tmp_path, store, monkeypatch):
    """When the disk fails, the old store stays and no traceback carries the value."""

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = path_of(tmp_path).read_bytes()
    with pytest.raises(KeyStoreError, match="No space left") as caught:
        store.add("b", "openai", "p", Secret(PLANTED.encode()))
    assert path_of(tmp_path).read_bytes() == before
    lines = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    assert PLANTED not in "".join(lines)
