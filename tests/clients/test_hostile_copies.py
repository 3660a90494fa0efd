"""`leasehold audit verify` on what an attacker made: one sentence each, no traceback, no memory, no escape."""

import json
import resource
from dataclasses import replace

import pytest
from click.testing import CliRunner
from tests.fakes.log_copy import ORIGIN, SignedLog, interleaved, placed
from tests.fakes.streams import Emitter

from leasehold.audit import Record
from leasehold.cli.app import leasehold
from leasehold.note import NOTE_BYTES_MAX
from leasehold.tiles import tile_path

WHOLE = interleaved(300)
MEMORY_BYTES_MAX = 128 * 1024 * 1024


@pytest.fixture
def log(tmp_path):
    """A log with a key."""
    return SignedLog(tmp_path)


@pytest.fixture
def run():
    """The command, in this process; whatever it raises beyond its own exits is raised here."""

    def run(*arguments):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = CliRunner().invoke(leasehold, ["audit", "verify", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY_BYTES_MAX
        return result

    return run


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("9223372036854775807", "first bad entry: position 1: it is not there"),
        ("9223372036854775808", "has a size beyond 9223372036854775807"),
        ("9" * 5000, "has a size beyond 9223372036854775807"),
        ("0300", "has no size"),
        ("+300", "has no size"),
        ("300 ", "has no size"),
        ("-1", "has no size"),
        ("3e2", "has no size"),
        ("\uff1300", "has no size"),
    ],
)
def test_a_size_that_is_none_is_named(log, run, size, said):
    """Signed by the log itself: its operator may be the one who attacks. A huge size is not counted through."""
    folder = log.copy(WHOLE[:0])
    root = log.note(WHOLE).split(b"\n")[2].decode()
    (folder / "checkpoint").write_bytes(log.sign(f"{ORIGIN}\n{size}\n{root}\n".encode()))
    result = run(folder, "--key", log.key_text)
    assert (result.exit_code, said in result.stderr) == (4 if "bad entry" in said else 1, True)


@pytest.mark.parametrize(
    ("bend", "said"),
    [
        (lambda note: note.replace(b"\n\n", b"\n"), "no empty line before its signatures"),
        (lambda note: note.replace(b"\n", b"\r\n"), "no empty line before its signatures"),
        (lambda note: note + b"\n", "does not end in a line with a signature"),
        (lambda note: note[:-1], "does not end in a line with a signature"),
        (lambda note: b"\xef\xbb\xbf" + note, "its signature does not hold"),
        (lambda note: b"\x1b[2J" + note, "control characters"),
        (lambda note: note + b"\xe2\x80\x94 \xff AAAAAAAA\n", "is not UTF-8"),
        (lambda note: note + 101 * note.splitlines(keepends=True)[-1], "more than 100 signatures"),
        (lambda note: note + NOTE_BYTES_MAX * b"x", "larger than a file of a copy can be"),
        (lambda _: b"", "no empty line before its signatures"),
        (lambda note: note.replace(ORIGIN.encode() + b" ", b"other "), f"is not signed by {ORIGIN}"),
    ],
)
def test_a_note_that_is_none_is_named(log, run, bend, said):
    """Whatever is wrong with the checkpoint of a copy, the reason is one sentence."""
    folder = log.copy(WHOLE[:3])
    (folder / "checkpoint").write_bytes(bend((folder / "checkpoint").read_bytes()))
    result = run(folder, "--key", log.key_text)
    assert (result.exit_code, said in result.stderr, result.stderr.count("\n")) == (1, True, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a\n3\n%s\n\nmore\n", "is no checkpoint"),
        (b"a\n3\n%s\n\xff\n", "is not UTF-8"),
        (b"a\n3\n%s\n\0\n", "control characters"),
        (b"a\n3\nAAAA\n", "has no root"),
        (b"a\n3\n", "is no checkpoint"),
        (b"\xe2\x80\xae\n3\n%s\n", "is of the log"),
    ],
)
def test_what_the_log_itself_signs_is_read_as_strictly(log, run, text, said):
    """A signature that holds makes no checkpoint of another text, and none of it reaches the terminal as it is."""
    folder = log.copy(WHOLE[:3])
    root = log.note(WHOLE[:3]).split(b"\n")[2]
    text = text.replace(b"a\n", ORIGIN.encode() + b"\n").replace(b"%s", root)
    (folder / "checkpoint").write_bytes(log.sign(text))
    result = run(folder, "--key", log.key_text)
    assert (result.exit_code, said in result.stderr, result.stderr.count("\n")) == (1, True, 1)
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in result.output


def test_an_empty_tree_has_one_root(log, run):
    """A checkpoint of no events with any other root contradicts itself."""
    folder = log.copy(WHOLE[:0])
    assert run(folder, "--key", log.key_text).exit_code == 0
    root = log.note(WHOLE[:3]).split(b"\n")[2].decode()
    (folder / "checkpoint").write_bytes(log.sign(f"{ORIGIN}\n0\n{root}\n".encode()))
    result = run(folder, "--key", log.key_text)
    assert (result.exit_code, "the first 0 events do not have the root that was signed" in result.stderr) == (4, True)


@pytest.mark.parametrize("kind", ["tile/0", "tile/entries", "bodies"])
@pytest.mark.parametrize(
    ("bend", "said"),
    [
        (lambda _: b"", "position 1"),
        (lambda data: data[:-1], "position 3"),
        (lambda data: data + b"\0", "position 3"),
        (lambda data: data[: len(data) // 3], "position"),
        (lambda data: bytes(len(data)), "position"),
        (lambda data: b"\xff" * len(data), "position 1"),
        (lambda data: data + bytes(20 * 1024 * 1024), "larger than a file of a copy can be"),
    ],
)
def test_a_file_of_the_wrong_length_is_named_by_its_first_bad_entry(log, run, kind, bend, said):
    """Tiles and bundles that are cut, filled or blown up."""
    folder = log.copy(WHOLE[:3])
    path = folder / tile_path(kind, 0, 3)
    path.write_bytes(bend(path.read_bytes()))
    result = run(folder, "--key", log.key_text)
    assert (result.exit_code, said in result.stderr) == (1 if "larger" in said else 4, True)


def test_a_link_is_not_followed(log, run, tmp_path):
    """A copy that points at another file of the auditor's machine is refused by the name of the link."""
    folder = log.copy(WHOLE[:3])
    path = folder / tile_path("bodies", 0, 3)
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    result = run(folder, "--key", log.key_text)
    assert (result.exit_code, f"{path} is no regular file" in result.stderr) == (1, True)


def test_names_cannot_move_the_cursor(log, run):
    """Streams, epochs and what a loss is called come from whoever wrote the log; JSON escapes them by itself."""
    forged = [replace(WHOLE[0], stream="a\x1b[2K\x1b[1Athe chain holds", epoch="\N{RIGHT-TO-LEFT OVERRIDE}\udc80")]
    forged = [replace(forged[0], digest=forged[0].computed_digest())]
    folder = log.copy(forged)
    result = run(folder, "--key", log.key_text)
    assert result.exit_code == 0
    assert "a?[2K?[1Athe chain holds epoch ??: up to 1" in result.stdout
    assert run(folder, "--key", log.key_text, "--json").stdout.isascii()
    lost = run(folder, "--key", log.key_text, "--head", f"\x1b[2J/e1/7/{64 * '0'}")
    assert (lost.exit_code, "stream ?[2J, epoch e1 is not there at all" in lost.stderr) == (4, True)


def line(**members):
    """The first record's line with other members; None leaves one out."""
    first = json.loads(WHOLE[0].line())
    return json.dumps({name: value for name, value in {**first, **members}.items() if value is not None})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            WHOLE[0].line().replace('"body"', '"body":"","body"'),
            "line 1 is no record of an audit export: a name stands twice",
        ),
        (WHOLE[0].line() + "x", "it is not JSON at character"),
        ("\ufeff" + WHOLE[0].line(), "it is not JSON at character 1"),
        ("[" * 200_000, "it is nested too deeply"),
        ("[]", "it is no JSON object"),
        ("null", "it is no JSON object"),
        (line(sequence=2**63), "no whole number"),
        (line(sequence=1.0), "no whole number"),
        (line(sequence=True), "no whole number"),
        (line(sequence="1"), "no whole number"),
        (line(position=-1), "no whole number"),
        (line().replace('"sequence": 1', '"sequence": ' + "9" * 5000), "no whole number"),
        (line().replace('"sequence": 1', '"sequence": 1e999'), "no whole number"),
        (line().replace('"sequence": 1', '"sequence": NaN'), "no whole number"),
        (line(digest=None), "it has no 'digest'"),
        (line(digest="AA" * 32), "lower-case hexadecimal"),
        (line(digest="00 " * 32), "lower-case hexadecimal"),
        (line(stream="a\0b"), "is no text"),
        (line(body={}), "is no text"),
        (line(stream="\ud800"), "half of a character"),
        (line(epoch="e\udbff"), "half of a character"),
        (line(body="\ud800"), "half of a character"),
        ("x" * 5_000_000, "it is too long"),
    ],
)
def test_a_line_that_is_no_record_is_named(run, tmp_path, text, said):
    """An export is read in one way only: nothing twice, no number that others round, no digest in two spellings."""
    path = tmp_path / "export.jsonl"
    path.write_text(text + "\n")
    result = run(path)
    assert (result.exit_code, said in result.stderr, result.stderr.count("\n")) == (1, True, 1)


@pytest.mark.parametrize("missing", ["1e999", "NaN", "true", '"3"', "3.0", "9" * 5000, "[]", "null"])
def test_a_declared_loss_with_no_numbers_declares_nothing(run, tmp_path, missing):
    """Whatever an event that claims to be one holds, it is an event like others."""
    body = b'{"details":{"digest":"","first_missing":%s,"gap_epoch":"e","gap_stream":"s","last_missing":%s}'
    body += b',"type":"audit.gap_accepted"}'
    chained = Emitter("s", "e").put(body % (missing.encode(), missing.encode()))
    record = Record(1, "s", "e", 1, chained.previous_digest, chained.digest, chained.body)
    path = tmp_path / "export.jsonl"
    path.write_text(record.line() + "\n")
    result = run(path)
    assert (result.exit_code, "declared lost" in result.stdout) == (0, False)


def test_a_file_beside_the_copy_is_not_read_without_end(log, run):
    """A device without an end in place of a key or a checkpoint."""
    folder = log.copy(WHOLE[:3])
    result = run(folder, "--key", log.key_text, "--checkpoint", "/dev/zero")
    assert (result.exit_code, "longer than 65536 bytes" in result.stderr) == (1, True)
    result = run(folder, "--key", "/dev/zero")
    assert (result.exit_code, "is no verifier key" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    "head", ["a/e/-1/" + 64 * "0", "a/e/1/00", "a/e/1e9/" + 64 * "0", "a/e/\u0667/" + 64 * "0", "a/e/1/" + 64 * "Z"]
)
def test_a_kept_head_is_read_strictly(log, run, head):
    """A slip in what was kept is wrong usage, and no head that nobody can reach."""
    assert run(log.copy(WHOLE[:3]), "--key", log.key_text, "--head", head).exit_code == 2


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_file_of_nothing_does_not_hold(log, run, tmp_path, text):
    """An export that was emptied, and a file of heads that never had one: nothing was checked, so nothing holds."""
    nothing, export = tmp_path / "nothing", tmp_path / "export.jsonl"
    nothing.write_text(text)
    export.write_text(line() + "\n")
    result = run(nothing)
    assert (result.exit_code, "has no record: nothing was checked" in result.stderr) == (1, True)
    result = run(export, "--heads", nothing)
    assert (result.exit_code, "has no head: nothing would be held against it" in result.stderr) == (1, True)
    assert run(export).exit_code == 0


def test_a_key_that_would_check_nothing_is_told(log, run, tmp_path):
    """JSON lines carry no signature: whoever gives a key believes otherwise. A key's missing file is named."""
    export = tmp_path / "export.jsonl"
    export.write_text(line() + "\n")
    result = run(export, "--key", log.key_text)
    assert (result.exit_code, "--key would check nothing" in result.stderr) == (2, True)
    result = run(log.copy(WHOLE[:3]), "--key", tmp_path / "checkpoint.pub")
    assert (result.exit_code, "checkpoint.pub' is no verifier key" in result.stderr) == (1, True)
    assert "no file that holds one" in result.stderr


@pytest.mark.parametrize("name", ["\\ud800", "a\\udfff"])
def test_a_head_of_half_a_character_is_named(run, tmp_path, name):
    """It has no bytes, so no chain can be over it."""
    export, heads = tmp_path / "export.jsonl", tmp_path / "heads"
    export.write_text(line() + "\n")
    heads.write_text('{"stream":"%s","epoch":"e","sequence":1,"digest":"%s"}\n' % (name, "0" * 64))  # noqa: UP031 - braces
    result = run(export, "--heads", heads)
    assert (result.exit_code, "half of a character" in result.stderr) == (1, True)


def test_a_copy_or_key_with_an_impossible_name_is_no_file(log, run):
    """Longer than a name can be."""
    assert run("x" * 5000).exit_code == 1
    assert run(log.copy(WHOLE[:3]), "--key", "x" * 5000).exit_code == 1


TWICE = b'{"type":"call.refused","wall_ms":1,"outcome":"denied","details":{"a":{"lease":"x","lea\\u0073e":"y"}}}'
THRICE = b'{"lease":"leases/a","type":"call.refused","wall_ms":1,"outcome":"denied","lease":"leases/b"}'
OURS = b'{"details":{"a":{"lease":"x"},"b":[{"lease":"x"},{"lease":"x"}]},"outcome":"denied","type":"t","wall_ms":1}'


def test_a_body_that_two_readers_read_differently_is_told_and_no_bad_entry(log, run, tmp_path):
    """In a file, and in a folder when its bodies are read: how many, and which; names of different objects are none."""
    emitter = Emitter()
    records = placed([emitter.put(body) for body in (OURS, TWICE, b"no json", THRICE)])
    lines = tmp_path / "lines"
    lines.write_text("".join(f"{record.line()}\n" for record in records))
    told = run(lines)
    assert told.exit_code == 0
    assert "may be read in two ways: 2 records; line 2: 'lease' stands twice" in told.output
    folder = log.copy(records)
    assert "two ways" not in run(folder, "--key", log.key_text).output
    told = run(folder, "--key", log.key_text, "--bodies", "--json")
    assert told.exit_code == 0
    verdict = json.loads(told.output)
    assert verdict["read_in_two_ways"] == 2
    assert verdict["first_read_in_two_ways"].startswith("position 2: 'lease'")
