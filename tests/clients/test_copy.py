"""A copy of the log, checked with nothing but the public key: every kind of tampering is found, and named."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.fakes.log_copy import ORIGIN, SignedLog, interleaved, placed
from tests.fakes.streams import Emitter

from leasehold import InvalidRequest
from leasehold.audit import LINE_CHARACTERS_MAX, Head, Record, records_of, verify
from leasehold.audit_copy import verify_copy
from leasehold.checkpoint import Checkpoint
from leasehold.cli.app import leasehold
from leasehold.cli.audit_verify_command import bounded
from leasehold.merkle import leaf_hash
from leasehold.tiles import tile_path, write_copy

SIZE = 600
WHOLE = interleaved(SIZE)


@pytest.fixture
def log(tmp_path):
    """A log with a key."""
    return SignedLog(tmp_path)


def edit(folder, path, change):
    """Change a file of a copy."""
    file = folder / path
    file.write_bytes(change(file.read_bytes()))


def frames(data, width):
    """The framed parts of a file of entries (width 2) or bodies (4)."""
    found, at = [], 0
    while at < len(data):
        end = at + width + int.from_bytes(data[at : at + width], "big")
        found.append(data[at:end])
        at = end
    return found


def reframed(width, change):
    """A change of the list of framed parts."""
    return lambda data: b"".join(change(frames(data, width)))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 600])
def test_an_untouched_copy_holds(log, size):
    """Whatever its size, all of it is checked, down to its own checkpoint."""
    verdict = verify_copy(log.copy(WHOLE[:size]), log.key)
    assert verdict.holds
    assert (verdict.records, verdict.held, verdict.hash_only) == (size, [size], 0)
    assert sum(head.sequence for head in verdict.heads.values()) == size


def test_the_layout_is_that_of_tlog_tiles(log):
    """Paths and sizes are what C2SP tlog-tiles says; every file is its owner's alone."""
    folder = log.copy(WHOLE)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "checkpoint",
        *(f"{kind}/{number}" for kind in ("tile/0", "tile/entries", "bodies") for number in ("000", "001", "002.p/88")),
        "tile/1/000.p/2",
    }
    assert tile_path("tile/0", 1_234_067, 256) == "tile/0/x001/x234/067"
    assert tile_path("tile/entries", 1000, 3) == "tile/entries/x001/000.p/3"
    assert (folder / "tile/0/001").stat().st_size == 256 * 32
    private = [folder, *(path for path in folder.rglob("*") if path.is_file())]
    assert {path.stat().st_mode & 0o077 for path in private} == {0}
    entries = frames((folder / "tile/entries/000").read_bytes(), 2)
    assert leaf_hash(entries[3][2:]) == (folder / "tile/0/000").read_bytes()[96:128]


def swapped(parts):
    """Two neighbours of one stream change places."""
    return [*parts[:8], parts[9], parts[8], *parts[10:]]


# What is done, the position named, and a word of what is said. Position 9 and 10 are neighbours of one stream.
TAMPERINGS = {
    "body edited": ([("bodies/000", lambda data: data.replace(b"call-3", b"call-4", 1))], 3, "digest does not match"),
    "body taken over from another": ([("bodies/000", reframed(4, swapped))], 9, "digest does not match"),
    "entry edited": ([("tile/entries/000", lambda data: data[:70] + b"\x00" + data[71:])], 1, "altered"),
    "entry and tile edited": (
        [
            ("tile/entries/000", lambda data: data[:70] + b"\x00" + data[71:]),
            ("tile/0/000", lambda data: b"\x00" * 32 + data[32:]),
        ],
        1,
        "altered",
    ),
    "tile edited": (
        [("tile/0/001", lambda data: data[:32] + b"\x00" * 32 + data[64:])],
        258,
        "its hash is not the one",
    ),
    "entry and body deleted": (
        [
            ("tile/entries/000", reframed(2, lambda parts: parts[:8] + parts[9:])),
            ("bodies/000", reframed(4, lambda parts: parts[:8] + parts[9:])),
        ],
        9,
        "sequence 2 was due",
    ),
    "deleted with its hash": (
        [
            ("tile/entries/000", reframed(2, lambda parts: parts[:8] + parts[9:])),
            ("bodies/000", reframed(4, lambda parts: parts[:8] + parts[9:])),
            ("tile/0/000", lambda data: data[: 8 * 32] + data[9 * 32 :]),
        ],
        9,
        "sequence 2 was due",
    ),
    "entries swapped": (
        [("tile/entries/000", reframed(2, swapped)), ("bodies/000", reframed(4, swapped))],
        9,
        "sequence 2 was due",
    ),
    "swapped with their hashes": (
        [
            ("tile/entries/000", reframed(2, swapped)),
            ("bodies/000", reframed(4, swapped)),
            ("tile/0/000", lambda data: data[:256] + data[288:320] + data[256:288] + data[320:]),
        ],
        9,
        "sequence 2 was due",
    ),
    "one put in": ([("tile/entries/000", reframed(2, lambda parts: [*parts, parts[-1]]))], 256, "goes on after it"),
    "body put in": ([("bodies/000", reframed(4, lambda parts: [*parts, parts[-1]]))], 256, "goes on after it"),
    "hash put in": ([("tile/0/000", lambda data: data + data[:32])], 256, "more hashes"),
    "cut in the middle of a file": ([("bodies/001", lambda data: data[:-1])], 512, "cut short"),
    "entries cut": ([("tile/entries/001", lambda data: data[:-1])], 512, "cut short"),
    "no entry": ([("tile/entries/000", lambda _: b"\0\x03abc")], 1, "no entry of a log"),
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_tampering_is_found_at_the_first_bad_entry(log, how):
    """The entry is named, and what is wrong with it."""
    changes, position, said = TAMPERINGS[how]
    folder = log.copy(WHOLE)
    for path, change in changes:
        edit(folder, path, change)
    verdict = verify_copy(folder, log.key)
    assert not verdict.holds
    assert verdict.flaw is not None
    assert verdict.flaw.where == f"position {position}"
    assert said in verdict.flaw.what
    assert verdict.records == position - 1


@pytest.mark.parametrize(("path", "position"), [("tile/entries/002.p/88", 513), ("bodies/001", 257), ("tile/0/000", 1)])
def test_a_missing_file_is_named_by_its_first_entry(log, path, position):
    """A copy that was cut is not the log that its checkpoint speaks for."""
    folder = log.copy(WHOLE)
    (folder / path).unlink()
    verdict = verify_copy(folder, log.key)
    assert verdict.flaw is not None
    assert verdict.flaw.where == f"position {position}"
    assert "missing" in verdict.flaw.what


def test_an_upper_tile_that_lies_is_found(log):
    """Whoever reads the tiles and not the entries must not be shown another tree."""
    folder = log.copy(WHOLE)
    edit(folder, "tile/1/000.p/2", lambda data: bytes(32) + data[32:])
    verdict = verify_copy(folder, log.key)
    assert verdict.flaw is None
    assert "tile/1/000.p/2" in verdict.wrong[0]
    assert not verdict.holds


def test_a_copy_made_anew_without_the_key_is_found_by_its_root(log):
    """Every digest and tile fits, and the signature is of the true log."""
    forged = log.copy(interleaved(SIZE, subject="someone else"), note=log.note(WHOLE))
    verdict = verify_copy(forged, log.key)
    assert verdict.flaw is None
    assert not verdict.holds
    assert "an event from 1 to 600 was rewritten" in verdict.wrong[0]
    verdict = verify_copy(log.copy([*WHOLE[:300], *forged_end()], note=log.note(WHOLE)), log.key, [early(log, 300)])
    assert verdict.held == [300]
    assert "an event from 301 to 600 was rewritten" in verdict.wrong[0]


def early(log, size):
    """A checkpoint that was kept when the log had this size."""
    return log.checkpoint(WHOLE[:size])


def forged_end():
    """Another history after position 300, well chained and placed."""
    last = {record.stream: record for record in WHOLE[:300]}
    records = []
    for stream, record in last.items():
        emitter = Emitter(stream, "e1")
        emitter.sequence, emitter.digest = record.sequence, record.digest
        records += emitter.calls(100)
    return [replace(record, position=position) for position, record in enumerate(placed(records), start=301)]


@pytest.mark.parametrize("size", [1, 255, 256, 300, 599, 600])
def test_a_history_rewritten_and_signed_again_is_found_by_any_earlier_checkpoint(log, size):
    """The collector's operator has the key; whoever kept a checkpoint of any size sees it."""
    rewritten = interleaved(SIZE, subject="someone else")
    folder = log.copy(rewritten)
    assert verify_copy(folder, log.key).holds
    verdict = verify_copy(folder, log.key, [early(log, size)])
    assert not verdict.holds
    what = "two checkpoints" if size == SIZE else f"an event from 1 to {size} was rewritten"
    assert what in verdict.wrong[0]


def test_a_log_cut_and_signed_again_is_found_by_a_later_checkpoint(log):
    """The shorter log is consistent in itself; a checkpoint that covers more is not reached."""
    folder = log.copy(WHOLE[:400])
    verdict = verify_copy(folder, log.key, [early(log, 300), early(log, SIZE)])
    assert verdict.held == [300, 400]
    assert verdict.wrong == ["a checkpoint covers 600 events and this log has 400: its end is missing"]


def test_a_fork_shows_between_two_checkpoints_of_one_size(log):
    """Two heads of one size must be one (A5)."""
    other = log.checkpoint(interleaved(300, subject="someone else"))
    verdict = verify_copy(log.copy(WHOLE), log.key, [early(log, 300), other])
    assert "two checkpoints of 300 events have different roots" in verdict.wrong[0]
    assert not verdict.holds


def test_earlier_checkpoints_of_any_size_are_held(log):
    """None, at the edges of tiles, within them, and all of it."""
    sizes = [0, 1, 200, 255, 256, 257, 511, 512, 513, 600]
    verdict = verify_copy(log.copy(WHOLE), log.key, [early(log, size) for size in sizes])
    assert verdict.holds
    assert verdict.held == sizes


def test_a_dropped_body_leaves_its_proof(log):
    """After retention the places and digests are still proven, and the verdict says what is no longer there."""
    dropped = [replace(record, body=b"") if record.position <= 100 else record for record in WHOLE]
    folder = log.copy(dropped, note=log.note(WHOLE))
    verdict = verify_copy(folder, log.key, [early(log, 50)])
    assert verdict.holds
    assert (verdict.records, verdict.hash_only) == (600, 100)
    edit(folder, "tile/entries/000", lambda data: data[:70] + b"\x00" + data[71:])
    assert verify_copy(folder, log.key).flaw is not None


@pytest.mark.parametrize("position", [2, 256, 257, 600])
def test_content_that_was_taken_out_is_no_retention(log, position):
    """Retention drops the oldest first: a body that is gone behind one that is there was removed by somebody."""
    records = [replace(record, body=b"") if record.position == position else record for record in WHOLE]
    verdict = verify_copy(log.copy(records, note=log.note(WHOLE)), log.key)
    assert not verdict.holds
    assert verdict.flaw is not None
    assert verdict.flaw.where == f"position {position}"
    assert "its content is gone, and that of an older event is not" in verdict.flaw.what

    by_lines = verify((f"line {record.position}", record) for record in records)
    assert by_lines.flaw is not None
    assert by_lines.flaw.where.startswith(f"line {position} ")
    assert by_lines.flaw.what == verdict.flaw.what


def test_a_declared_loss_is_told_and_no_other_is_excused(log):
    """A hole is accepted where an event before it names exactly it; one more lost record is not."""
    sidecar, centre = Emitter("sidecar-0", "e1"), Emitter("collector", "c1")
    records = sidecar.calls(9)
    gap = {"digest": records[6].digest.hex(), "first_missing": 3, "gap_epoch": "e1", "gap_stream": "sidecar-0"}
    event = {"details": {**gap, "last_missing": 7}, "outcome": "allowed", "type": "audit.gap_accepted", "wall_ms": 1}
    body = json.dumps(event, separators=(",", ":"))
    whole = placed([*records[:2], centre.put(body.encode()), *records[7:]])
    verdict = verify_copy(log.copy(whole), log.key)
    assert verdict.holds
    assert verdict.gaps == ["stream sidecar-0, epoch e1: records 3 to 7 were lost"]
    more = placed([*records[:2], whole_record(whole[2]), records[8]])
    verdict = verify_copy(log.copy(more), log.key)
    assert verdict.flaw is not None
    assert "sequence 3 was due" in verdict.flaw.what


def whole_record(record: Record):
    """The chained record at a place."""
    from leasehold_broker.domain.audit_chain import ChainedRecord  # noqa: PLC0415 - of this function only

    return ChainedRecord(
        record.stream, record.epoch, record.sequence, record.previous_digest, record.body, record.digest
    )


def test_kept_heads_must_be_reached(log):
    """As for a file of JSON lines, heads that were kept show a missing end."""
    folder = log.copy(WHOLE)
    last = WHOLE[-1]
    good = Head(last.stream, "e1", last.sequence, last.digest)
    assert verify_copy(folder, log.key, (), [good]).holds
    for head in (replace(good, sequence=last.sequence + 1), replace(good, epoch="e2"), replace(good, digest=bytes(32))):
        assert not verify_copy(folder, log.key, (), [head]).holds


@pytest.mark.parametrize("position", [1, 256, 300, 600])
def test_a_kept_head_in_the_midst_is_compared_too(log, position):
    """A log that was rewritten and signed again agrees with its own checkpoint, and not with a head from before."""
    kept = [
        Head(record.stream, record.epoch, record.sequence, record.digest) for record in (WHOLE[position - 1], WHOLE[99])
    ]
    assert verify_copy(log.copy(WHOLE), log.key, kept=kept).holds
    forged = interleaved(600, subject="someone else")
    verdict = verify_copy(log.copy(forged), log.key, kept=kept[:1])
    assert not verdict.holds
    assert verdict.flaw is not None
    assert verdict.flaw.where == f"position {position}"
    assert verdict.flaw.what.startswith("its digest is not the one that was kept")
    one_wrong = verify_copy(log.copy(WHOLE), log.key, kept=[kept[0], replace(kept[0], digest=bytes(32))])
    assert not one_wrong.holds


def test_a_copy_without_a_good_checkpoint_is_none(log, tmp_path):
    """Missing, of another key, or altered: there is nothing to check against."""
    folder = log.copy(WHOLE)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(InvalidRequest, match="not signed by"):
        verify_copy(folder, SignedLog(tmp_path / "elsewhere").key)
    edit(folder, "checkpoint", lambda note: note.replace(b"600", b"599"))
    with pytest.raises(InvalidRequest, match="signature does not hold"):
        verify_copy(folder, log.key)
    (folder / "checkpoint").unlink()
    with pytest.raises(InvalidRequest, match="has no checkpoint"):
        verify_copy(folder, log.key)


@pytest.mark.parametrize(
    "more", [b"\0", b"\n", b"junk\n", b"\xe2\x80\x94 other AAAAAAAA", b"\xe2\x80\x94 other AAAA\n"]
)
def test_a_checkpoint_ends_with_its_signatures(log, more):
    """What stands behind them is nobody's word; the line of another key is a line."""
    note = log.note(WHOLE)
    with pytest.raises(InvalidRequest, match=r"signature line that cannot be read|is no signed note"):
        Checkpoint.of_note(note + more, log.key)
    assert Checkpoint.of_note(note + b"\xe2\x80\x94 other AAAAAAAA\n", log.key).size == len(WHOLE)


@pytest.mark.parametrize("path", ["checkpoint", "bodies/000.p/*", "tile/0/000.p/*", "tile/entries/000.p/*"])
def test_what_is_no_file_is_not_read(log, path):
    """A pipe would be waited for without end, a device has no end: both are named."""
    folder = log.copy(WHOLE[:10])
    (found,) = folder.glob(path)
    for make in (os.mkfifo, lambda place: place.symlink_to("/dev/zero"), Path.mkdir):
        found.unlink()
        make(found)
        with pytest.raises(InvalidRequest, match="no regular file"):
            verify_copy(folder, log.key)
        if found.is_dir():
            found.rmdir()
            found.touch()


def test_a_file_without_line_ends_is_not_read_whole():
    """No line of an export is that long: no more of it is read than shows it."""
    endless = io.StringIO("x" * (3 * LINE_CHARACTERS_MAX))
    with pytest.raises(InvalidRequest, match="line 1 "):
        next(records_of(bounded(endless)))
    assert endless.tell() == LINE_CHARACTERS_MAX + 1


def test_a_copy_is_not_written_over_another(log, tmp_path):
    """A folder that exists is left alone, and a log with a hole is not copied."""
    folder = log.copy(WHOLE[:3])
    with pytest.raises(InvalidRequest, match="exists already"):
        write_copy(folder, WHOLE, log.note(WHOLE), SIZE)
    with pytest.raises(InvalidRequest, match="position 2"):
        write_copy(tmp_path / "holed", [WHOLE[0], WHOLE[2]], log.note(WHOLE), 2)


@pytest.fixture
def run():
    """The command, in this process."""
    return lambda *arguments: CliRunner().invoke(leasehold, ["audit", *map(str, arguments)])


def test_the_command_checks_a_folder_with_a_key(log, run, tmp_path):
    """Exit code 0 and the sizes that held; 4 and the reason otherwise; 2 where the key is missing."""
    folder = log.copy(WHOLE)
    (tmp_path / "key").write_text(log.key_text + "\n")
    (tmp_path / "then").write_bytes(log.note(WHOLE[:300]))
    good = run("verify", folder, "--key", tmp_path / "key", "--checkpoint", tmp_path / "then")
    assert (good.exit_code, good.stderr) == (0, "")
    assert "the chain holds: 600 records in 3 streams" in good.stdout
    assert "as signed: the checkpoint of 300 events" in good.stdout

    (tmp_path / "then").write_bytes(log.note(interleaved(300, subject="x")))
    bad = run("verify", folder, "--key", log.key_text, "--checkpoint", tmp_path / "then")
    assert bad.exit_code == 4
    assert "not as signed: the first 300 events" in bad.stderr
    assert run("verify", folder).exit_code == 2
    assert run("verify", folder, "--checkpoint", tmp_path / "then").exit_code == 2
    assert run("verify", folder, "--key", log.key_text, "--partial").exit_code == 2
    assert run("verify", folder, "--key", "nonsense").exit_code == 1


def test_json_lines_are_held_against_checkpoints_too(log, run, tmp_path):
    """The older form of export has no checkpoint of its own, and can be checked against kept ones."""
    path = tmp_path / "export.jsonl"
    path.write_text("".join(record.line() + "\n" for record in WHOLE))
    (tmp_path / "then").write_bytes(log.note(WHOLE[:300]))
    (tmp_path / "later").write_bytes(log.note([*WHOLE, replace(WHOLE[-1], position=601)]))
    options = ("--key", log.key_text, "--checkpoint")
    assert run("verify", path, *options, tmp_path / "then").exit_code == 0
    cut = run("verify", path, *options, tmp_path / "later", "--json")
    assert cut.exit_code == 4
    assert "covers 601 events and this log has 600" in cut.stdout
    assert run("verify", path, *options, tmp_path / "missing").exit_code == 1


def test_a_checkpoint_needs_the_extra_only_to_check_a_signature(log, monkeypatch):
    """Without cryptography the client imports, and says what to install when a signature is to be checked."""
    import sys  # noqa: PLC0415 - of this test only

    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidRequest, match=r"install leasehold\[verify\]"):
        Checkpoint.of_note(log.note(WHOLE[:1]), log.key)
    assert log.key.name == ORIGIN
