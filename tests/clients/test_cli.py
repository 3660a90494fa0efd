"""The other commands: leases by hand, revocation, and how the command presents itself."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from leasehold import InvalidRequest, Scope, __version__
from leasehold.cli.app import leasehold
from leasehold.cli.options import _scopes
from leasehold.cli.revocation_progress import ROWS_MAX, sidecars_table
from leasehold.operators import OperatorClient, selector
from leasehold.v1 import revocation_service_pb2 as pb


@pytest.fixture
def run():
    """The command, in this process."""
    runner = CliRunner()
    return lambda *arguments, **more: runner.invoke(leasehold, [str(each) for each in arguments], **more)


@pytest.fixture
def where(running, token_file):
    """Options that find the fake sidecar."""
    return "--sidecar", running.target, "--token-file", token_file


def test_version(run):
    """`leasehold --version` names the distribution's version."""
    assert f"leasehold, version {__version__}\n" == run("--version").stdout


def test_without_click_a_sentence_says_what_to_install():
    """The base distribution has no click; the command says how to get it."""
    code = "import sys; sys.modules['click'] = None\nimport leasehold, leasehold.aio, leasehold.operators\n"
    code += "from leasehold.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (result.returncode, result.stdout) == (1, "")
    assert "python -m pip install 'leasehold[cli]'" in result.stderr


def commands(command, path=()):
    """All commands below one."""
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))


@pytest.mark.parametrize("path", list(commands(leasehold)), ids="-".join)
def test_every_command_explains_itself(run, path):
    """Each command has help, and each that does something names its exit codes."""
    result = run(*path, "--help")

    assert result.exit_code == 0
    if "--timeout" in result.stdout:
        assert "Exit codes:" in result.stdout


def test_a_lease_is_acquired_shown_listed_and_released(run, where, leases, tmp_path):
    """By hand a lease stays until it is released; its token goes into a private file only."""
    token_out = tmp_path / "lease-token"
    acquired = run("lease", "acquire", *where, "--provider", "openai", "--budget", "1", "--token-out", token_out)
    leases.charge("leases/1", 250_000)

    assert acquired.exit_code == 0, acquired.output
    assert (token_out.read_text(), token_out.stat().st_mode & 0o777) == ("lhs_secret-1", 0o600)
    assert "0.25 USD of 1.00 USD spent, 0.00 USD held" in run("lease", "show", *where, "leases/1").stdout
    assert "leases/1" in run("lease", "list", *where).stdout
    assert run("lease", "release", *where, "leases/1").stdout == "leases/1 released; spent 0.25 of 1.00 USD\n"
    assert "lhs_secret" not in acquired.output


def test_a_token_file_is_never_overwritten(run, where, leases, tmp_path):
    """An existing file is left alone, and the lease is not kept."""
    path = tmp_path / "precious"
    path.write_text("mine")
    result = run("lease", "acquire", *where, "--provider", "openai", "--token-out", path)

    assert (result.exit_code, path.read_text()) == (1, "mine")
    assert len(leases.requests("ReleaseLease")) == 1


def test_a_token_may_go_to_standard_output_alone(run, where):
    """With '-' nothing but the token is printed, for a pipe."""
    assert run("lease", "acquire", *where, "--provider", "openai", "--token-out", "-").stdout == "lhs_secret-1\n"


def test_a_dry_run_holds_nothing(run, where, leases):
    """--dry-run says what would be granted."""
    result = run("lease", "acquire", *where, "--provider", "openai", "--dry-run")

    assert (result.exit_code, leases.leases) == (0, {})


def test_delegate_and_watch(run, where, leases):
    """A child lease is acquired by hand, and a watch ends with it."""
    run("lease", "acquire", *where, "--provider", "openai", "--budget", "1")
    delegated = run("lease", "delegate", *where, "--budget", "0.1", "--json", "leases/1")
    leases.revoke("leases/1")
    watched = run("lease", "watch", *where, "leases/2")

    assert json.loads(delegated.stdout)["parent"] == "leases/1"
    assert watched.stdout.startswith("leases/2 revoked (LEASE_REVOKED)")


def test_a_refusal_is_a_sentence_and_exit_code_1(run, where):
    """A refusal goes to standard error with reason and next step, without a stack trace."""
    result = run("lease", "show", *where, "leases/9")

    assert result.exit_code == 1
    assert result.stderr.startswith("leasehold: there is no lease leases/9. [LEASE_NOT_FOUND] Next: check the name")


def test_models_belong_to_their_provider():
    """With several providers each model says whose it is."""
    assert [Scope("openai", ("gpt-5",)), Scope("anthropic", ("claude-*",), (), (), 0)] == _scopes(
        ["openai,anthropic"], ["openai=gpt-5", "anthropic=claude-*"], [], [], None
    )


@pytest.mark.parametrize(
    "options",
    [
        ("--provider", "openai,anthropic", "--model", "gpt-5"),
        ("--provider", "openai", "--model", "anthropic=claude"),
        ("--model", "gpt-5"),
        ("--provider", "openai", "--label", "novalue"),
        (),
    ],
)
def test_unclear_scopes_are_wrong_usage(run, where, options):
    """What could mean two things is exit code 2, before anything is sent."""
    assert run("lease", "acquire", *where, *options).exit_code == 2


def test_a_revocation_waits_for_every_sidecar(run, collector, revocations):
    """The command ends with 0 when all have acknowledged, and shows each."""

    def acknowledge():
        revocations.wait_for_entry()
        revocations.acknowledge("sidecar-a")
        revocations.acknowledge("sidecar-b")

    thread = threading.Thread(target=acknowledge)
    thread.start()
    result = run("revoke", "--collector", collector.target, "--subject", "agent-*", "--note", "leak")
    thread.join()

    assert result.exit_code == 0, result.output
    assert "revocations/1 is in force; 2 live leases match, as last reported" in result.stdout
    assert "2 of 2 acknowledged; complete" in result.stdout
    assert (revocations.requests[0].selector.subject.subject, revocations.requests[0].note) == ("agent-*", "leak")


def test_a_revocation_that_is_not_acknowledged_in_time_exits_3(run, collector, revocations):
    """In force but not known to be complete: exit code 3, and the table says who is waited for."""
    revocations.applied["sidecar-a"] = 5
    result = run("revoke", "--collector", collector.target, "--all", "--yes", "--wait", "0.3")

    assert result.exit_code == 3
    assert "1 of 2 acknowledged; not complete" in result.stdout
    assert "not every sidecar has acknowledged within 0.3 s" in result.stderr


def fleet(acknowledged, waiting):
    """The progress of revocations/7 in a fleet; the first to wait has been silent for longest."""
    rows = [pb.SidecarProgress(sidecar=f"done-{number}", applied_epoch=7) for number in range(acknowledged)]
    late = [pb.SidecarProgress(sidecar=f"late-{number}", applied_epoch=6) for number in range(waiting)]
    for number, row in enumerate(late):
        row.last_heard_time.seconds = 1000 + number
    return pb.RevocationProgress(entry=pb.RevocationEntry(epoch=7), sidecars=[*rows, *reversed(late)])


def test_of_a_large_fleet_only_the_laggards_are_shown():
    """A page of those who are done would hide the one who is not; the one unheard for longest comes first."""
    lines = sidecars_table(fleet(995, 5)).splitlines()

    assert [line.split()[0] for line in lines[1:6]] == [f"late-{number}" for number in range(5)]
    assert lines[6:] == ["995 of 1000 acknowledged; not complete"]


def test_no_more_laggards_are_shown_than_fit_a_screen():
    """The rest is a number."""
    lines = sidecars_table(fleet(0, 1000)).splitlines()

    assert len(lines) == ROWS_MAX + 3
    assert lines[-2:] == ["and 960 more", "0 of 1000 acknowledged; not complete"]


def test_of_a_large_fleet_that_is_done_one_line_is_shown():
    """Nobody is waited for: no table."""
    assert sidecars_table(fleet(1000, 0)) == "1000 of 1000 acknowledged; not complete"


def test_a_watch_that_tells_changes_is_put_together(monkeypatch):
    """After the first answer only those who have changed come; what was told of the others stays."""
    fresh = pb.SidecarProgress(sidecar="late-1", applied_epoch=7, leases_ended=3)
    newcomer = pb.SidecarProgress(sidecar="a-new-one", applied_epoch=7)
    answers = [
        pb.WatchRevocationResponse(progress=fleet(1, 2)),
        pb.WatchRevocationResponse(
            progress=pb.RevocationProgress(entry=pb.RevocationEntry(epoch=7), sidecars=[fresh, newcomer]),
            changes_only=True,
        ),
        pb.WatchRevocationResponse(
            progress=pb.RevocationProgress(entry=pb.RevocationEntry(epoch=7), complete=True), changes_only=True
        ),
        pb.WatchRevocationResponse(progress=fleet(1, 0)),
    ]
    client = OperatorClient("unix:///nowhere")
    asked = []
    monkeypatch.setattr(client._link, "stream", lambda _method, request, _seconds: asked.append(request) or answers)

    seen = list(client.watch_progress("revocations/7", 1.0))

    applied = [{row.sidecar: row.applied_epoch for row in progress.sidecars} for progress in seen]
    assert applied == [
        {"done-0": 7, "late-0": 6, "late-1": 6},
        {"a-new-one": 7, "done-0": 7, "late-0": 6, "late-1": 7},
        {"a-new-one": 7, "done-0": 7, "late-0": 6, "late-1": 7},
        {"done-0": 7},
    ]
    assert [progress.complete for progress in seen] == [False, False, True, False]
    assert asked[0].changes_only


def test_a_dry_run_over_a_large_fleet_leaves_its_count_on_the_screen(run, collector, revocations):
    """As many lines as fit, and how many there are more; --json has all."""
    revocations.live = [f"leases/{number}" for number in range(100)]
    result = run("revoke", "--collector", collector.target, "--provider", "openai", "--dry-run")
    lines = result.stdout.splitlines()
    assert lines[0] == "100 live leases match; nothing was changed"
    assert lines[-2:] == ["  leases/39", "and 60 more; --json lists all"]
    told = run("revoke", "--collector", collector.target, "--provider", "openai", "--dry-run", "--json")
    assert len(json.loads(told.stdout)["matching_leases"]) == 100


def test_a_file_of_selectors_is_one_request(run, collector, revocations, tmp_path):
    """One call, whatever the number of lines; the lines that match nothing are named, and the table is of all."""
    file = tmp_path / "suspects.txt"
    file.write_text("subject agent-7\n# and their key\nkey openai\nleases/9\n")
    revocations.applied = dict.fromkeys(revocations.applied, 9)
    arguments = ("--from", str(file), "--block", "--expect", "2", "--note", "ticket 4711")

    dry = run("revoke", "--collector", collector.target, *arguments, "--dry-run")
    result = run("revoke", "--collector", collector.target, *arguments)

    assert (dry.exit_code, result.exit_code) == (0, 0), result.output
    assert dry.stdout.splitlines()[0] == "2 live leases match; nothing was changed"
    assert "revocations/1 to revocations/3 are in force; 2 live leases match, as last reported" in result.stdout
    assert "1 of 3 selectors match no live lease, as last reported: line 4" in result.stderr
    first, second = revocations.requests
    assert first.validate_only
    assert not second.validate_only
    assert [one.WhichOneof("selector") for one in second.selectors] == ["subject", "key", "lease"]
    assert (second.block_new, second.leases_max, second.note) == (True, 2, "ticket 4711")
    assert not second.HasField("selector")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--subject", "agent-7"), "takes the place of the other selectors"),
        (("--all", "--yes"), "takes the place of the other selectors"),
        (("--rotate",), "for that key alone"),
        (("--disable-upstream",), "for that key alone"),
    ],
)
def test_a_file_stands_for_all_selectors(run, collector, revocations, arguments, words):
    """Wrong usage, and nothing is asked for."""
    result = run("revoke", "--collector", collector.target, "--from", "-", *arguments, input="key k\n")
    assert (result.exit_code, revocations.requests) == (2, [])
    assert words in result.stderr


def test_no_watch_does_not_wait(run, collector, revocations):
    """--no-watch ends when the revocation is in force."""
    result = run("revoke", "--collector", collector.target, "--lease", "leases/1", "--no-watch", "--json")

    assert (result.exit_code, len(revocations.entries)) == (0, 1)


def test_a_dry_run_changes_nothing(run, collector, revocations):
    """--dry-run lists what would die, whose it is and where; "at least" where the sidecars could not list all."""
    result = run("revoke", "--collector", collector.target, "--provider", "openai", "--dry-run")

    assert result.stdout.splitlines() == [
        "2 live leases match; nothing was changed",
        "SIDECAR    SUBJECT  ISSUER     LEASES",
        "sidecar-a  agent-7  https://i  2",
        "  leases/1",
        "  leases/2",
    ]
    assert not result.stderr
    revocations.incomplete = True
    result = run("revoke", "--collector", collector.target, "--provider", "openai", "--dry-run")
    assert result.stdout.startswith("at least 2 live leases match; nothing was changed\n")
    assert revocations.entries == []


@pytest.mark.parametrize(
    ("live", "options", "said"),
    [
        ([], (), "no live leases match, as last reported: is the selector spelt"),
        ([], ("--dry-run",), "no live leases match, as last reported"),
        (["leases/1"], ("--expect", "3"), "1 live lease matches, fewer than the 3 expected, as last reported"),
        (["leases/1"], ("--expect", "1"), ""),
        ([], ("--expect", "0"), ""),
    ],
)
def test_a_slip_of_the_selector_is_told(run, collector, revocations, live, options, said):
    """What matches nothing, or less than expected, is acknowledged by every sidecar all the same: one is warned."""
    revocations.live = live
    result = run("revoke", "--collector", collector.target, "--subject", "agents/", "--no-watch", *options)
    assert result.exit_code == 0
    assert said in result.stderr
    assert bool(said) == bool(result.stderr)


def test_whoever_stops_watching_is_told_that_it_is_in_force(collector, revocations):
    """Ctrl-C ends the watching alone: no word like "aborted", exit code 3, and what to type to watch on."""
    leasehold = Path(sys.executable).with_name("leasehold")
    command = [str(leasehold), "revoke", "--collector", collector.target, "--all", "--yes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert "revocations/1 is in force" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        _, trouble = watching.communicate(timeout=60)
    assert watching.returncode == 3
    assert trouble == (
        "leasehold: not watched any longer; revocations/1 is in force all the same: "
        "'leasehold revocations revocations/1' watches on\n"
    )


def test_one_revocation_is_watched_on(run, collector, revocations):
    """By whoever did not issue it, or has stopped watching: who has acknowledged, until all have."""
    assert run("revoke", "--collector", collector.target, "--all", "--yes", "--no-watch").exit_code == 0
    result = run("revocations", "--collector", collector.target, "revocations/1", "--wait", "0.3")
    assert result.exit_code == 3
    assert "0 of 2 acknowledged; not complete" in result.stdout
    revocations.acknowledge("sidecar-a")
    revocations.acknowledge("sidecar-b")
    result = run("revocations", "--collector", collector.target, "revocations/1", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["complete"] is True
    assert run("revocations", "--collector", collector.target, "revocations/1", "--blocks").exit_code == 2


def test_what_else_is_ordered_reaches_the_collector(run, collector, revocations):
    """Selector, cause, block, expected count: each as it was asked."""
    told = ("--label", "team=research", "--cause", "key-leaked", "--block-for", "2h", "--expect", "2", "--no-watch")
    assert run("revoke", "--collector", collector.target, *told).exit_code == 0
    assert run("revoke", "--collector", collector.target, "--sidecar", "a", "--block", "--no-watch").exit_code == 0
    assert run("revoke", "--collector", collector.target, "--issuer", "https://i", "--no-watch").exit_code == 0
    first, second, third = revocations.requests
    assert (first.selector.label.name, first.selector.label.value) == ("team", "research")
    assert (first.cause, first.block_new, first.block_duration.seconds, first.leases_max) == (1, True, 7200, 2)
    assert (second.selector.sidecar, second.block_new, second.HasField("block_duration")) == ("a", True, False)
    assert not second.HasField("leases_max")
    assert (third.selector.subject.issuer, third.selector.subject.subject) == ("https://i", "*")
    assert not third.block_new


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--lease", "leases/1", "--all"),
        ("--subject", ""),
        ("--issuer", "https://i", "--key", "k"),
        ("--all",),
        ("--label", "team"),
        ("--label", "=research"),
        ("--key", "k", "--block-for", "soon"),
        ("--key", "k", "--expect", "-1"),
        ("--key", "k", "--cause", "because"),
    ],
)
def test_an_unclear_revocation_is_wrong_usage(run, collector, revocations, options):
    """Not exactly one selector, an empty one, or --all with nobody to ask: nothing is sent."""
    result = run("revoke", "--collector", collector.target, *options)

    assert result.exit_code == 2
    assert revocations.requests == []


def test_a_stranger_is_told_that_he_is_no_operator(run, collector, revocations):
    """The collector's refusal comes out with its next step."""
    revocations.forbidden = True
    result = run("revoke", "--collector", collector.target, "--key", "anthropic-prod")

    assert result.exit_code == 1
    assert "[OPERATOR_NOT_ALLOWED] Next: ask the platform team to list you" in result.stderr


def test_a_selector_needs_its_value():
    """The library refuses an empty selector as well."""
    with pytest.raises(InvalidRequest):
        selector(key="")


def test_a_bare_file_name_is_a_token_file(run, running, token_file, monkeypatch, leases):
    """--token-file token means the file in this directory, not the token itself."""
    monkeypatch.chdir(token_file.parent)

    assert run("lease", "list", "--sidecar", running.target, "--token-file", "token").exit_code == 0


@pytest.mark.parametrize("options", [[], ["--token-file", "TOKEN"]])
def test_over_a_unix_socket_only_a_named_token_is_shown(run, collector, log, token_file, monkeypatch, options):
    """An agent's token in the environment does not stand in the way of an operator's uid."""
    monkeypatch.setenv("LEASEHOLD_TOKEN_FILE", str(token_file))
    named = [option.replace("TOKEN", str(token_file)) for option in options]
    result = run("audit", "query", "--collector", collector.target, *named)

    assert result.exit_code == 0, result.output
    assert ["authorization" in shown for shown in log.metadata] == [bool(options)]
