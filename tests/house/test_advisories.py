"""`make audit-deps` against an advisory database: what it finds, and that no other answer passes for a clean one."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fakes.advisory_database import JINJA, advisory_database, record

FOLDER = Path(__file__).resolve().parents[2] / "requirements"
SETS = sorted(path.name for path in FOLDER.glob("*.txt"))


def _module():
    spec = importlib.util.spec_from_file_location("advisories", FOLDER / "advisories.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["advisories"] = module
    spec.loader.exec_module(module)
    return module


advisories = _module()
PINS = {name: advisories.pins_of((FOLDER / name).read_text()) for name in SETS}
SOME = PINS["runtime.txt"][0]


@pytest.fixture
def database():
    """An advisory database that knows of no flaw in what we pin."""
    with advisory_database() as served:
        yield served


def run(address, *, required=False):
    """The command, as `make audit-deps` runs it: exit code and what it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ADVISORIES")}
    environment |= {"ADVISORIES_URL": address, "no_proxy": "127.0.0.1"}
    environment |= {"ADVISORIES": "required"} if required else {}
    command = [sys.executable, "-I", str(FOLDER / "advisories.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.stderr == ""
    return done.returncode, done.stdout


def audited(database, *, required=False):
    """The same in this process."""
    lines, code = advisories.audit(FOLDER, database.address, required=required)
    return code, "\n".join(lines)


def test_every_pin_of_every_set_is_looked_up(database):
    """A clean answer passes, names each set with its count, and each requirement of each set was asked about."""
    code, said = run(database.address, required=True)
    assert code == 0
    assert said.splitlines() == [
        f"{name}: {len(pins)} pins looked up, 0 with a known flaw" for name, pins in PINS.items()
    ]
    assert set(database.asked) == {pin for pins in PINS.values() for pin in pins} | {JINJA}
    for name in SETS:
        lines = (FOLDER / name).read_text().splitlines()
        assert len(PINS[name]) == sum("==" in line.partition(";")[0] for line in lines)


def test_a_known_flaw_is_found_and_named(database):
    """The pin, its set, the advisory, what it is about and where it is fixed; exit code 1, required or not."""
    database.flawed[SOME] = ["GHSA-xxxx-yyyy-zzzz"]
    database.records["GHSA-xxxx-yyyy-zzzz"] = record("GHSA-xxxx-yyyy-zzzz", SOME[0], "Lets\nanybody in", "99.0")
    code, said = run(database.address)
    assert code == 1
    assert f"  {'=='.join(SOME)}: GHSA-xxxx-yyyy-zzzz: Lets anybody in; fixed in 99.0" in said.splitlines()
    assert said.startswith("console.txt: ")
    assert f"runtime.txt: {len(PINS['runtime.txt'])} pins looked up, 1 with a known flaw" in said
    assert audited(database, required=True)[0] == 1


def test_a_flaw_is_one_without_its_record_and_after_pages(database):
    """What the database does not tell more of still fails; names on later pages are found."""
    database.page = 2
    database.flawed[SOME] = [f"PYSEC-2026-{number}" for number in range(5)]
    code, said = audited(database)
    assert code == 1
    assert all(f"PYSEC-2026-{number}: not told more: it answered with HTTP 404" in said for number in range(5))


def test_a_withdrawn_advisory_is_none(database):
    """Its publisher took it back."""
    database.flawed[SOME] = ["PYSEC-1"]
    database.records["PYSEC-1"] = record("PYSEC-1", SOME[0], "x", "9", withdrawn="2026-02-01T00:00:00Z")
    code, said = audited(database)
    assert code == 0
    assert "PYSEC-1" not in said


def changed(change):
    """An answer to the batch that is another object than the right one."""
    return lambda path, said: (200, json.dumps(change(json.loads(said)) if "batch" in path else {}).encode())


WRONG = {
    "5xx": lambda _path, said: (503, said),
    "4xx": lambda _path, said: (429, said),
    "a page of a portal": lambda *_: (200, b"<html>Sign in</html>"),
    "nothing": lambda *_: (200, b""),
    "an empty object": lambda *_: (200, b"{}"),
    "a list": lambda *_: (200, b"[]"),
    "deeper than any": lambda *_: (200, b"[" * 100_000),
    "another encoding": lambda *_: (200, b"\xff\xfe\x00"),
    "clean whatever it is asked": changed(lambda told: {"results": [{} for _ in told["results"]]}),
    "a part": changed(lambda told: {"results": told["results"][:-1]}),
    "more than was asked": changed(lambda told: {"results": [*told["results"], {}]}),
    "no results": changed(lambda _: {"results": None}),
    "results of another shape": changed(
        lambda told: {"results": [told["results"][0], *[[]] * (len(told["results"]) - 1)]}
    ),
    "names of another shape": changed(lambda told: {"results": [{"vulns": [{"name": "x"}]} for _ in told["results"]]}),
    "a name that writes elsewhere": changed(
        lambda told: {"results": [{"vulns": [{"id": "../x\n"}]} for _ in told["results"]]}
    ),
    "pages without end": changed(lambda told: {"results": [one | {"next_page_token": "0"} for one in told["results"]]}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_no_other_answer_passes_for_a_clean_one(database, wrong):
    """It is said first that nothing was looked up, and why; where an answer is required, that fails with code 2."""
    database.spoil = WRONG[wrong]
    code, said = audited(database, required=True)
    assert code == 2
    assert said.startswith(
        f"NOTHING WAS LOOKED UP of {len({pin for pins in PINS.values() for pin in pins})} pins in {len(SETS)} sets"
    )
    assert "looked up, 0 with" not in said
    assert audited(database)[0] == 0


def test_an_answer_without_end_is_not_read_to_it(database, monkeypatch):
    """A bound on what is read."""
    monkeypatch.setattr(advisories, "ANSWER_BYTES_MAX", 100)
    code, said = audited(database, required=True)
    assert code == 2
    assert "at most 100 bytes" in said


def test_a_database_that_answers_in_part_has_not_answered(database, monkeypatch):
    """When the second batch fails, what the first one said does not pass."""
    monkeypatch.setattr(advisories, "BATCH_PINS_MAX", 100)
    answers = iter(range(100))
    database.spoil = lambda _path, said: (200 if next(answers) == 0 else 500, said)
    code, said = audited(database, required=True)
    assert code == 2
    assert "NOTHING WAS LOOKED UP" in said
    assert "HTTP 500" in said


def test_nobody_at_the_address():
    """Said by the command, with what to do; a failure where it is required."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    for required, expected in ((False, 0), (True, 2)):
        code, said = run(address, required=required)
        assert code == expected
        assert "NOTHING WAS LOOKED UP" in said
        assert "not reached" in said
        assert "ADVISORIES_URL" in said


@pytest.mark.parametrize("address", ["http://osv.example", "ftp://127.0.0.1", "osv.example", "file:///etc/passwd"])
def test_an_address_in_clear_text_is_refused(address):
    """Whoever stands between could say that all is well."""
    lines, code = advisories.audit(FOLDER, address, required=False)
    assert code == 2
    assert "has to be https" in lines[0]


def test_a_set_without_pins_is_not_clean(tmp_path):
    """A file that is not read as pins is a failure of ours, before anybody is asked."""
    (tmp_path / "a.txt").write_text("requests>=2\n")
    lines, code = advisories.audit(tmp_path, "https://osv.invalid", required=False)
    assert code == 2
    assert "a.txt" in lines[0]
    assert advisories.audit(tmp_path / "none", "https://osv.invalid", required=False)[1] == 2
