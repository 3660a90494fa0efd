"""Single files that cannot be opened, written, synced or put in place: a sink's, a checkpoint's copy, a key.

Real processes, by system call injection and by a disk that has no inode left. Skipped, with the reason, where processes
cannot be traced or nothing can be mounted. Databases are in test_failing_syscalls.py and test_full_disks.py.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest
from tests.e2e.conftest import eventually
from tests.unkind.failing_syscalls import command_failing, failing_on, why_not
from tests.unkind.real_house import Caller, complete_log, needs_root, possible, run, staged

from leasehold_broker.adapters.checkpoint_key import open_checkpoint_key
from leasehold_broker.demo import files
from leasehold_broker.demo.stage import Stage, broker

pytestmark = pytest.mark.timeout(600)
WIDE = os.environ.get("FAULTS") == "all"
"""All of them are `make unkind`."""
OPENS, WRITES, SYNCS = "open,openat", "write", "fsync,fdatasync"
RENAMES, LINKS = "rename,renameat,renameat2", "link,linkat"
ERRORS = ("ENOSPC", "EIO")
SINK_FAULTS = list(product((OPENS, WRITES, SYNCS), ERRORS)) if WIDE else [(WRITES, "ENOSPC")]
MAKING = [(WRITES, 1), (SYNCS, 1), (LINKS, 1), (SYNCS, 2)]
"""A key: its file is written, synced, put in place, and its folder synced: by then it is there."""
MAKE_KEY = """import sys; from pathlib import Path
from leasehold_broker.adapters.checkpoint_key import open_checkpoint_key
open_checkpoint_key(Path(sys.argv[1]), "log.test/files")"""
REPLACE = """import sys; from pathlib import Path
from leasehold_broker.adapters.private_files import replace_private
replace_private(Path(sys.argv[1]), b"new")"""
"""In plain processes: those of ours that hold secrets refuse to be traced from their start."""
KEY_FAULTS = list(product(MAKING, ERRORS)) if WIDE else [((LINKS, 1), "EIO")]
PUTTING = [(WRITES, 1), (SYNCS, 1), (RENAMES, 1)]
REPLACE_FAULTS = list(product(PUTTING, ERRORS)) if WIDE else [((RENAMES, 1), "ENOSPC")]


class FilesStage(Stage):
    """Its collector has a sink that is a file, and copies its checkpoint."""

    @property
    def lines(self) -> Path:
        """The sink's."""
        return self.layout.root / "sink" / "audit.jsonl"

    @property
    def copy(self) -> Path:
        """Of the newest checkpoint."""
        return self.layout.root / "copy" / "checkpoint"

    async def start(self, name: str) -> None:
        """The collector's file is added to before its first start."""
        config = self.layout.config(name)
        if name == "collector" and "[[sinks]]" not in config.read_text():
            for folder in (self.lines.parent, self.copy.parent):
                folder.mkdir(mode=0o700)
            sink = f'[[sinks]]\nname = "lines"\nkind = "file"\npath = "{self.lines}"\nformat = "leasehold"\n'
            audit = f'[audit]\norigin = "log.test/files"\ncheckpoint_copy = "{self.copy}"\n'
            files.write(config, f"{config.read_text()}\n{audit}\n{sink}")
        await super().start(name)


@pytest.fixture(scope="module", autouse=True)
def possible_here(tmp_path_factory):
    """Nothing is tested where processes cannot be traced."""
    if why := why_not(tmp_path_factory.mktemp("trace")):
        pytest.skip(why)


@pytest.fixture(scope="module")
def house():
    """One sidecar and its centre."""
    with staged(FilesStage, chunk_ms=5, authority_seconds=30) as house:
        yield house


@contextmanager
def lease_of(house, name):
    """A lease that a call was taken under, and who calls."""
    with house.client(name=name, subject=f"agents/research/{name}") as client:
        lease = client.acquire(provider="anthropic", budget="0.05", ttl="10m", renew=False)
        caller = Caller(lease)
        assert eventually(lambda: caller.call() == "taken")
        yield lease, caller
        caller.close()
        lease.release()


def warned(house):
    """What the collector has warned of so far."""
    text = (house.stage.layout.logs / "collector.log").read_text()
    return [json.loads(line)["event"] for line in text.splitlines() if '"warning"' in line]


@pytest.mark.parametrize(("calls", "error"), SINK_FAULTS)
def test_a3_a_sink_whose_file_fails_is_told_of_and_has_every_event_once_it_works(house, calls, error, tmp_path):
    """Calls go on and the log grows; the sink catches up in order; at most broken lines stand between its events."""
    stage, before = house.stage, warned(house).count("a sink takes no events")
    pid = stage.serving("collector").process.pid
    with lease_of(house, f"sink-{calls.split(',')[0]}-{error}".lower()) as (lease, caller):
        assert eventually(stage.lines.exists)
        with failing_on(pid, [stage.lines], calls, error, 1, tmp_path / "trace"):
            assert caller.call() == "taken"
            assert eventually(lambda: warned(house).count("a sink takes no events") > before)
            assert caller.call() == "taken"
        assert "(INJECTED)" in (tmp_path / "trace").read_text()

    def told():
        events = complete_log(house, lease=lease.name)
        return events if events[-1]["type"] == "lease.released" else None

    wanted = [json.dumps(event, sort_keys=True) for event in eventually(told)]
    assert len(wanted) > 6

    def written():
        found = [json.dumps(one["event"], sort_keys=True) for one in whole_lines(stage.lines)]
        return found if wanted[-1] in found else []

    got = eventually(written)
    places = [got.index(one) for one in wanted]
    assert places == sorted(places), "in order"


def whole_lines(path):
    """What a reader takes of the sink's file: each line that is JSON."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


@pytest.mark.parametrize("error", ERRORS if WIDE else ERRORS[:1])
def test_a5_a_checkpoint_whose_copy_cannot_be_put_in_place_leaves_the_old_copy_whole(house, error, tmp_path):
    """The log goes on and says so; the copy is the old one, to the byte; then the newest."""
    stage, known = house.stage, "the copy of the checkpoint cannot be written"
    with lease_of(house, f"copy-{error}".lower()) as (_, caller):
        assert eventually(stage.copy.exists)
        before = warned(house).count(known)
        pid = stage.serving("collector").process.pid
        with failing_on(pid, [], RENAMES, error, 1, tmp_path / "trace"):
            old = stage.copy.read_bytes()
            assert caller.call() == "taken"
            assert eventually(lambda: warned(house).count(known) > before)
            assert stage.copy.read_bytes() == old
        assert caller.call() == "taken"
        assert eventually(lambda: stage.copy.read_bytes() != old)
    assert list(stage.copy.parent.iterdir()) == [stage.copy], "nothing half is left beside it"


@pytest.mark.parametrize(("making", "error"), KEY_FAULTS)
def test_a5_a_signing_key_is_made_whole_or_not_at_all(making, error, tmp_path):
    """A fault at any step is told and leaves nothing half; the next start makes the key, or finds it whole."""
    calls, at = making
    key, trace = tmp_path / "state" / "checkpoint.key", tmp_path / "trace"
    key.parent.mkdir(mode=0o700)
    done = command_failing(calls, error, at, trace, sys.executable, "-B", "-c", MAKE_KEY, str(key))
    assert trace.read_text().count("(INJECTED)") == 1
    assert done.returncode == 1
    assert "OSError: [Errno" in done.stderr
    assert {file.name for file in key.parent.iterdir()} == ({key.name} if (calls, at) == (SYNCS, 2) else set())
    made = open_checkpoint_key(key, "log.test/files")
    assert open_checkpoint_key(key, "log.test/files").verifier_key == made.verifier_key


@pytest.mark.parametrize(("putting", "error"), REPLACE_FAULTS)
def test_a_file_of_secrets_that_cannot_be_replaced_is_the_old_one(tmp_path, putting, error):
    """So are a key store and the copies of checkpoints written: a fault at any step leaves the old one to the byte."""
    calls, at = putting
    store, trace = tmp_path / "keys.json", tmp_path / "trace"
    store.write_bytes(b"old")
    done = command_failing(calls, error, at, trace, sys.executable, "-B", "-c", REPLACE, str(store))
    assert trace.read_text().count("(INJECTED)") == 1
    assert done.returncode == 1
    assert "OSError: [Errno" in done.stderr
    assert store.read_bytes() == b"old"
    assert {file.name for file in tmp_path.iterdir()} == {store.name, trace.name}


@needs_root
def test_a_sidecar_without_an_inode_left_refuses_to_start_and_starts_once_there_is_one(house, tmp_path):
    """Its database cannot be made: a sentence and exit code 2, no traceback; then it starts as if nothing had been."""
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    if not possible("mount", "-t", "tmpfs", "-o", "size=48m,nr_inodes=2,mode=700", "leasehold-test", str(folder)):
        pytest.skip("no tmpfs can be mounted here")
    try:
        (folder / "taken").touch()
        text = house.stage.layout.config("sidecar-a").read_text()
        text = text.replace(f"{house.stage.layout.root}/state/sidecar-a", str(folder / "state"))
        text = text.replace("/run/sidecar-a/grpc.sock", "/run/small/grpc.sock")
        config = files.write(house.stage.layout.config("small"), text)
        command = broker("sidecar", "--config", str(config))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 2, done.stderr
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        run("mount", "-o", "remount,nr_inodes=100", str(folder))
        running = house.wait_for(house.stage.processes.start("small", command))
        house.wait_for(house.stage.processes.until_healthy(running, house.stage.layout.socket("small")))
        assert house.wait_for(house.stage.processes.stop(running)) == 0
    finally:
        run("umount", str(folder))
