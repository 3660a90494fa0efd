"""The audit chain as an outsider checks it: against the broker's own chain, altered, cut, forked, and online."""

import json

import pytest
from click.testing import CliRunner

from leasehold import InvalidRequest
from leasehold.audit import Head, Record, heads_of, records_of, verify
from leasehold.cli.app import leasehold
from leasehold.operators import OperatorClient


@pytest.fixture
def filled(log):
    """Two streams, mixed, one of them with two epochs; a body with a character outside ASCII."""
    for number in range(4):
        log.append("sidecar-a", "lease.acquired", lease=f"leases/{number}", subject={"issuer": "i", "subject": "agënt"})
        log.append("sidecar-b", "call.admitted", lease="leases/0")
    log.append("sidecar-a", "sidecar.started", epoch="e2")
    return log


@pytest.fixture
def run():
    """The command, in this process."""
    runner = CliRunner()
    return lambda *arguments: runner.invoke(leasehold, list(arguments))


@pytest.fixture
def exported(filled, collector, run, tmp_path):
    """The log as a file."""
    path = tmp_path / "export.jsonl"
    result = run("audit", "export", "--collector", collector.target, "-o", str(path))
    assert (result.exit_code, result.stderr) == (0, "leasehold: 9 records exported\n")
    return path


def test_an_untouched_export_verifies_offline(exported, collector, run):
    """The broker's chain and the client's own code agree, with no broker running."""
    collector.stop()
    result = run("audit", "verify", str(exported))

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("the chain holds: 9 records in 3 streams\n")


def test_an_export_is_readable_only_by_its_owner(exported):
    """The file holds who did what; others on the machine may not read it."""
    assert exported.stat().st_mode & 0o777 == 0o600


def altered(lines, number, **members):
    """The lines with members of one changed."""
    entry = json.loads(lines[number])
    return [*lines[:number], json.dumps({**entry, **members}), *lines[number + 1 :]]


@pytest.mark.parametrize(
    ("damage", "where", "what"),
    [
        (lambda lines: altered(lines, 4, body='{"type":"x"}'), "line 5", "altered"),
        (lambda lines: altered(lines, 4, digest="00" * 32), "line 5", "altered"),
        (lambda lines: altered(lines, 4, digest="00"), "line 5", "32 bytes"),
        (lambda lines: altered(lines, 4, stream="sidecar-b"), "line 5", "does not follow"),
        (lambda lines: altered(lines, 4, previous_digest="00" * 32), "line 5", "does not follow"),
        (lambda lines: lines[:4] + lines[5:], "line 6", "missing, repeated or out of order"),
        (lambda lines: lines[2:], "line 1", "beginning of the epoch is missing"),
        (lambda lines: [*lines, lines[-1]], "line 10", "position"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "line 3", "position"),
        (lambda lines: altered(lines, 8, position=0, sequence=0), "line 9", "no place"),
    ],
)
def test_the_first_bad_entry_is_named(exported, run, damage, where, what):
    """Whatever is changed, removed, repeated or moved is found, with its place."""
    exported.write_text("\n".join(damage(exported.read_text().splitlines())) + "\n")
    result = run("audit", "verify", str(exported))

    assert result.exit_code == 4
    assert f"first bad entry: {where} (" in result.stderr
    assert what in result.stderr


def test_a_missing_end_shows_against_kept_heads(exported, collector, run, tmp_path):
    """A chain that was cut short holds by itself; a head kept elsewhere shows the cut."""
    heads = tmp_path / "heads.jsonl"
    heads.write_text(run("audit", "heads", "--json", "--collector", collector.target).stdout)
    lines = exported.read_text().splitlines()
    exported.write_text("\n".join(lines[:5]))

    assert run("audit", "verify", str(exported)).exit_code == 0
    result = run("audit", "verify", str(exported), "--heads", str(heads))
    assert result.exit_code == 4
    assert "stream sidecar-a, epoch e1 ends at sequence 3, but sequence 4 was known to exist" in result.stderr
    assert "stream sidecar-a, epoch e2 is not there at all" in result.stderr


def test_a_rewritten_log_shows_against_a_kept_head(exported, run):
    """A log that was rebuilt from some point on holds by itself, but not against a head from before."""
    result = run("audit", "verify", str(exported), "--head", f"sidecar-a/e1/2/{'11' * 32}")

    assert result.exit_code == 4
    assert "rewritten" in result.stderr


def test_a_part_can_be_checked(exported, run):
    """--partial accepts a file that begins in the middle, and still finds what is wrong in it."""
    lines = exported.read_text().splitlines()
    exported.write_text("\n".join(lines[2:]))

    assert run("audit", "verify", "--partial", str(exported)).exit_code == 0
    exported.write_text("\n".join(altered(lines[2:], 3, body="{}")))
    assert run("audit", "verify", "--partial", str(exported)).exit_code == 4


@pytest.mark.parametrize("line", ["{", "[]", "7", '{"position": 1}', '{"position": true}', "[" * 5000, '"' + "x" * 99])
def test_a_line_that_is_no_record_is_named(line):
    """A broken file is an error with its line, not a stack trace."""
    with pytest.raises(InvalidRequest, match="line 2 is no record"):
        verify(records_of(["", line]))


def test_the_collectors_log_is_verified_online(filled, collector, run):
    """Online, every record is fetched and the collector's own heads must be reached."""
    result = run("audit", "verify", "--json", "--collector", collector.target)

    verdict = json.loads(result.stdout)
    assert (verdict["holds"], verdict["records"], len(verdict["streams"])) == (True, 9, 3)


def test_a_forged_record_is_found_online(filled, collector, run):
    """A record that was changed in the collector's store is named by its position."""
    object.__setattr__(filled.records[3], "body", b'{"type":"forged","outcome":"allowed"}')
    result = run("audit", "verify", "--collector", collector.target)

    assert result.exit_code == 4
    assert "first bad entry: position 4" in result.stderr


def test_a_body_that_is_not_utf8_survives_the_export():
    """Exactly the bytes that were hashed come back, whatever they are."""
    record = Record(1, "s", "e", 1, bytes(32), bytes(32), b'{"a":"\xff\xc3"}')

    assert record == Record.of_line(record.line(), 1)


def test_heads_are_read_back():
    """What heads --json prints is what --heads reads."""
    assert [Head("a/b", "e", 3, b"\x01" * 32)] == heads_of(
        '{"stream":"a/b","epoch":"e","sequence":3,"digest":"' + "01" * 32 + '"}\n'
    )


def test_queries_filter_and_page(filled, collector, run):
    """Filters go to the collector, all pages are read, the limit holds."""
    where = ("--collector", collector.target)
    acquired = run("audit", "query", *where, "--type", "lease.", "--stream", "sidecar-a")
    limited = run("audit", "query", *where, "--limit", "2", "--json")

    assert len(acquired.stdout.splitlines()) == 4
    assert "lease.acquired allowed leases/0 agënt" in acquired.stdout
    assert [json.loads(line)["position"] for line in limited.stdout.splitlines()] == [1, 2]


def test_what_callers_wrote_cannot_move_the_terminals_cursor(log, collector, run):
    """Control characters in events are shown as question marks."""
    log.append("s", "lease.acquired", lease="leases/\x1b[2J1")
    result = run("audit", "query", "--collector", collector.target)

    assert "leases/?[2J1" in result.stdout


def test_a_time_without_zone_is_refused(run):
    """A time that could mean two moments is wrong usage."""
    assert run("audit", "query", "--collector", "/x", "--since", "2026-11-23").exit_code == 2


def test_following_goes_on_after_a_break(filled, collector, log):
    """A follower sees every event once, over a restart of the collector."""
    with OperatorClient(collector.target) as client:
        events = client.follow_events(0)
        positions = [next(events).position for _ in range(9)]
        collector.stop()
        collector.start()
        log.append("sidecar-b", "lease.released")
        positions.append(next(events).position)
        events.close()

    assert list(range(1, 11)) == positions


def test_an_operator_needs_no_token_over_a_unix_socket(filled, collector, log, run):
    """Without a token file no authorization is sent: the uid decides."""
    run("audit", "query", "--collector", collector.target)

    assert "authorization" not in log.metadata[0]


def test_a_line_says_what_it_was_about(run, collector, log):
    """Who, what, how it ended and what it cost; for a revocation what was named; for a refusal the exact reason."""
    call = {"provider": "openai", "model": "gpt", "operation": "responses", "held": {"cost_micro_usd": 42}}
    end = {"end": "cut_by_drain", "charged": {"cost_micro_usd": 2026}, "estimated": True}
    log.append("s", "call.admitted", details=call)
    log.append("s", "call.settled", details=end)
    log.append("s", "revocation.issued", details={"selector": {"environment": "prod"}})
    log.append("s", "identity.refused", details={"detail": "expired\x1b[2J", "message": "not accepted"})
    lines = run("audit", "query", "--collector", collector.target).stdout.splitlines()

    assert lines[0].endswith("call.admitted allowed openai gpt responses held 0.000042 USD")
    assert lines[1].endswith("call.settled allowed cut_by_drain charged 0.002026 USD (estimated)")
    assert lines[2].endswith("revocation.issued allowed environment=prod")
    assert lines[3].endswith("identity.refused allowed (expired?[2J)")
