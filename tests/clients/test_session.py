"""Sessions on this disk: whose file it is, whom it is shown to, how it is renewed and ended; and their commands."""

import json
import multiprocessing
import os
import time

import pytest
from click.testing import CliRunner
from tests.clients.conftest import JWT
from tests.fakes.scripted_issuer import CLIENT, ScriptedIssuer, unsigned

from leasehold.cli.app import leasehold
from leasehold.cli.options import Connection
from leasehold.errors import IdentityRejected, Unavailable
from leasehold.signin.issuer import Client
from leasehold.signin.session import Session, Sessions
from leasehold.signin.tokens import Tokens

HERE = "collector.example:8790"


@pytest.fixture
def issuer():
    """One that answers as told."""
    with ScriptedIssuer().serving() as found:
        yield found


@pytest.fixture
def sessions(tmp_path, monkeypatch):
    """Of this test alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Sessions()


@pytest.fixture
def keep(issuer, sessions):
    """Keeps a session whose token has so many seconds left; gives the token."""

    def write(seconds=600, refresh="r-1", collector=HERE, subject="ada", resource=""):
        expires = int(time.time()) + seconds
        bearer = unsigned(issuer.claims(exp=expires, jti=f"{collector} {seconds}"))
        tokens = Tokens(bearer, refresh, subject, expires)
        sessions.write(Session(collector, Client(issuer.url, CLIENT, ("openid", "x"), resource), tokens))
        return bearer

    return write


@pytest.fixture
def run():
    """The command, in this process."""
    runner = CliRunner()
    return lambda *arguments: runner.invoke(leasehold, [str(each) for each in arguments])


def refused(call) -> str:
    """The sentence with which it is refused."""
    with pytest.raises(IdentityRejected) as caught:
        call()
    assert caught.value.reason == "SIGN_IN_FAILED"
    return str(caught.value)


def test_a_session_is_kept_as_it_is(sessions, keep, issuer):
    """What is written is read, in a file and a folder of this user alone."""
    bearer = keep()
    path = sessions.path(HERE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    found = sessions.read(HERE)
    assert found.client == Client(issuer.url, CLIENT, ("openid", "x"), "")
    assert (found.tokens.bearer, found.tokens.refresh, found.tokens.subject) == (bearer, "r-1", "ada")
    assert sessions.bearer(HERE) == bearer
    assert issuer.asked == []
    assert bearer not in repr(found)
    assert "r-1" not in repr(found)
    assert [each.suffix for each in path.parent.iterdir()] == [".json"]


def test_a_session_is_of_one_collector(sessions, keep):
    """No other collector is shown it; two spellings of a socket are one collector."""
    keep()
    assert sessions.read("other.example:8790") is None
    assert "not signed in for other" in refused(lambda: sessions.bearer("other.example:8790"))
    of_socket = keep(collector="unix:///run/c.sock")
    assert sessions.bearer("/run/c.sock") == of_socket
    moved = sessions.path("evil.example:1")
    moved.write_bytes(sessions.path(HERE).read_bytes())
    moved.chmod(0o600)
    refused(lambda: sessions.read("evil.example:1"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_session_that_others_may_read_is_not_used(sessions, keep, mode):
    """It is said, and not silently mended: who read it?"""
    keep()
    sessions.path(HERE).chmod(mode)
    assert "not this user's alone" in refused(lambda: sessions.bearer(HERE))


def test_a_link_is_no_session(sessions, keep, tmp_path):
    """Neither read through nor written through."""
    keep()
    path = sessions.path(HERE)
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.symlink_to(elsewhere)
    refused(lambda: sessions.read(HERE))
    before = elsewhere.read_bytes()
    keep(subject="bob")
    assert not path.is_symlink()
    assert elsewhere.read_bytes() == before


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"version": 2}', b"[" * 99_999, b"\xff", b'{"version": 1}']
)
def test_a_session_that_is_broken(sessions, keep, raw):
    """It is named; nothing is guessed."""
    keep()
    sessions.path(HERE).write_bytes(raw)
    assert "is not as it was written" in refused(lambda: sessions.read(HERE))


@pytest.mark.parametrize("name", ["bearer", "refresh", "subject", "expires"])
def test_a_session_with_a_member_of_another_kind(sessions, keep, name):
    """Not text where text belongs, no number where one does."""
    keep()
    kept = json.loads(sessions.path(HERE).read_bytes())
    kept["tokens"][name] = None
    sessions.path(HERE).write_text(json.dumps(kept))
    refused(lambda: sessions.read(HERE))


def test_a_disk_that_takes_nothing(sessions, keep, tmp_path):
    """The sentence says so, and what was kept is."""
    bearer = keep()
    scratch = sessions.path(HERE).with_suffix(f".{os.getpid()}.new")
    scratch.mkdir()
    assert "cannot be kept" in refused(lambda: keep(subject="bob"))
    assert sessions.read(HERE).tokens.bearer == bearer


def test_a_session_is_renewed_before_its_end(sessions, keep, issuer):
    """Within a minute of it; the new refresh token is kept, and where none comes the old one stays."""
    keep(30)
    renewed = issuer.tokens() | {"refresh_token": "r-2"}
    issuer.answers = [renewed]
    assert sessions.bearer(HERE) == renewed["id_token"]
    form = {"grant_type": "refresh_token", "refresh_token": "r-1", "client_id": CLIENT}
    assert issuer.asked == [("/token", form)]
    assert sessions.read(HERE).tokens.refresh == "r-2"
    keep(-5)
    issuer.answers = [issuer.tokens()]
    sessions.bearer(HERE)
    assert sessions.read(HERE).tokens.refresh == "r-1"
    assert len(issuer.asked) == 2


def test_a_renewal_for_a_resource(sessions, keep, issuer):
    """It names the resource again, and an ID token need not come with it."""
    keep(30, resource="https://c")
    access = unsigned(issuer.claims(aud="c"))
    issuer.answers = [{"token_type": "Bearer", "access_token": access}]
    assert sessions.bearer(HERE) == access
    assert issuer.asked[0][1]["resource"] == "https://c"


def bearer_in_a_process(answers) -> None:
    """Another command at the same time."""
    answers.put(Sessions().bearer(HERE))


def test_commands_at_once_renew_once(sessions, keep, issuer):
    """A refresh token is shown once, however many commands find the session at its end."""
    keep(-5)
    renewed = issuer.tokens() | {"refresh_token": "r-2"}
    issuer.answers = [renewed, (400, {"error": "invalid_grant"})]
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    processes = [spawn.Process(target=bearer_in_a_process, args=(answers,)) for _ in range(4)]
    for process in processes:
        process.start()
    found = {answers.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert found == {renewed["id_token"]}
    assert len(issuer.asked) == 1


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((400, {"error": "invalid_grant"}), "has ended the session: invalid_grant"),
        ("another subject", "another subject"),
        ("without an ID token", "no ID token"),
    ],
)
def test_a_renewal_that_is_refused_ends_the_session(sessions, keep, issuer, answer, why):
    """The tokens are gone from the disk; the next command says that nobody is signed in."""
    keep(30)
    given = {"another subject": issuer.tokens(sub="eve"), "without an ID token": {"token_type": "Bearer"}}
    issuer.answers = [given.get(answer, answer) if isinstance(answer, str) else answer]
    assert why in refused(lambda: sessions.bearer(HERE))
    assert sessions.read(HERE).tokens is None
    assert "r-1" not in sessions.path(HERE).read_text()
    assert "not signed in" in refused(lambda: sessions.bearer(HERE))


def test_an_issuer_that_is_away_ends_nothing(sessions, keep, issuer):
    """What still lives is used; what is over is not, and may be renewed later."""
    issuer.answers = [(503, {})]
    living = keep(30)
    assert sessions.bearer(HERE) == living
    keep(-5)
    with pytest.raises(Unavailable) as caught:
        sessions.bearer(HERE)
    assert caught.value.reason == "ISSUER_UNREACHABLE"
    assert sessions.read(HERE).tokens.refresh == "r-1"


def test_a_session_without_renewal(sessions, keep, issuer):
    """It is used to its end, and then not."""
    living = keep(30, refresh="")
    assert sessions.bearer(HERE) == living
    keep(-5, refresh="")
    assert "offers no renewal" in refused(lambda: sessions.bearer(HERE))
    assert issuer.asked == []


def token_for(target, token_file=None):
    """What an operator's connection would show: a token, a path, or None for none."""
    source = Connection(target, token_file, None, 5)._operators_token()
    return source() if callable(source) else source


def test_what_goes_before_a_session(sessions, keep, tmp_path, monkeypatch):
    """--token-file, then LEASEHOLD_TOKEN_FILE (over TCP), then the session of this very collector."""
    bearer = keep()
    of_socket = keep(collector="/run/c.sock")
    assert token_for(HERE) == bearer
    assert token_for("other.example:1") is None
    assert token_for("unix:///run/c.sock") == of_socket
    assert token_for(HERE, "/t") == "/t"
    monkeypatch.setenv("LEASEHOLD_TOKEN_FILE", str(tmp_path / "token"))
    assert token_for(HERE) is None
    assert token_for("unix:///run/c.sock") == of_socket
    monkeypatch.delenv("LEASEHOLD_TOKEN_FILE")
    sessions.end(HERE)
    sessions.end("/run/c.sock")
    refused(lambda: token_for(HERE))
    assert token_for("unix:///run/c.sock") is None


def test_a_command_shows_the_session(sessions, keep, run, collector, log):
    """Over a socket that one signed in for, the collector sees the token; without a session it sees none."""
    assert run("audit", "query", "--collector", collector.target).exit_code == 0
    bearer = keep(collector=collector.target)
    assert run("audit", "query", "--collector", collector.target).exit_code == 0
    shown = [each.get("authorization") for each in log.metadata]
    assert shown == [None, f"Bearer {bearer}"]


def test_whoami_over_a_unix_socket_is_the_uid(run):
    """Nobody signs in there: it is no failure to have no session."""
    for target in ("unix:///run/collector.sock", "/run/collector.sock"):
        said = run("whoami", "--collector", target)
        assert (said.exit_code, said.stdout.startswith(f"uid {os.getuid()}, for ")) == (0, True)
    assert json.loads(run("whoami", "--collector", "/run/collector.sock", "--json").stdout) == {"uid": os.getuid()}


def test_whoami_says_what_the_issuer_says(sessions, keep, run, issuer):
    """Subject, issuer, collector and end; as JSON the claims. The token itself is shown nowhere."""
    bearer = keep(refresh="")
    said = run("whoami", "--collector", HERE)
    assert said.exit_code == 0
    assert said.stdout.startswith(f"ada of {issuer.url}, for {HERE}; until 20")
    assert "renewed" not in said.stdout
    claims = run("whoami", "--collector", HERE, "--json")
    assert json.loads(claims.stdout)["sub"] == "ada"
    assert bearer not in said.output + claims.output
    nobody = run("whoami", "--collector", "other.example:1")
    assert (nobody.exit_code, nobody.stdout) == (1, "")
    assert "sign in with 'leasehold login'" in nobody.stderr


def test_logout_ends_it_here_and_there(sessions, keep, run, issuer):
    """The tokens are gone from the disk, the issuer is told; a second time there is nothing to do."""
    bearer = keep()
    issuer.answers = [{}]
    assert run("logout", "--collector", HERE).stdout == f"signed out for {HERE}\n"
    assert issuer.asked == [("/revoke", {"token": "r-1", "token_type_hint": "refresh_token", "client_id": CLIENT})]
    kept = sessions.path(HERE).read_text()
    assert bearer not in kept
    assert "r-1" not in kept
    assert run("logout", "--collector", HERE).stdout == f"not signed in for {HERE}\n"
    assert len(issuer.asked) == 1


@pytest.mark.parametrize("trouble", ["away", "refuses", "has none"])
def test_a_logout_that_the_issuer_was_not_told(sessions, keep, run, issuer, trouble):
    """It is ended here all the same, and exit code 3 says that it goes on there."""
    keep()
    issuer.answers = [(503, {}) if trouble == "away" else (400, {"error": "unsupported_token_type"})]
    if trouble == "has none":
        del issuer.configuration["revocation_endpoint"]
    result = run("logout", "--collector", HERE)
    assert result.exit_code == 3
    assert result.stdout == f"signed out for {HERE}\n"
    assert "the issuer could not be told" in result.stderr
    assert sessions.read(HERE).tokens is None


def test_login_needs_to_know_where(sessions, run):
    """The first time the issuer and the client are named; without a collector there is nothing to sign in for."""
    assert "give --issuer and --client-id" in run("login", "--collector", HERE).stderr
    assert run("login", "--collector", HERE, "--issuer", "https://i").exit_code == 2
    assert run("login", "--issuer", "https://i", "--client-id", "c").exit_code == 2


def test_login_by_device(sessions, run, issuer, monkeypatch):
    """The code is shown; the session is kept; the second time nothing needs to be named, and the first is ended."""
    invited = {
        "device_code": "d-1",
        "user_code": "ABCD",
        "verification_uri": "https://login.example/device",
        "interval": 1,
    }
    issuer.answers = [invited, issuer.tokens() | {"refresh_token": "r-1"}, {}]
    first = run(
        "login", "--collector", HERE, "--device", "--issuer", issuer.url, "--client-id", CLIENT, "--scope", "groups"
    )
    assert first.exit_code == 0, first.output
    assert "open https://login.example/device and enter ABCD" in first.stderr
    assert first.stdout.startswith(f"signed in for {HERE} as ada; until 20")
    assert sessions.read(HERE).client.scopes == ("openid", "groups")
    issuer.answers = [invited, issuer.tokens(sub="bob") | {"refresh_token": "r-2"}, {}]
    monkeypatch.setenv("LEASEHOLD_TOKEN_FILE", "/t")
    second = run("login", "--collector", HERE, "--device")
    assert second.exit_code == 0, second.output
    assert "LEASEHOLD_TOKEN_FILE is set, and goes before the session" in second.stderr
    assert sessions.read(HERE).tokens.subject == "bob"
    assert [(path, form.get("token")) for path, form in issuer.asked][-1] == ("/revoke", "r-1")
    assert "r-1" not in first.output + second.output


def test_a_login_that_fails_keeps_the_session(sessions, keep, run, issuer):
    """Whoever was signed in still is."""
    bearer = keep()
    issuer.answers = [(400, {"error": "unauthorized_client"})]
    result = run("login", "--collector", HERE, "--device")
    assert result.exit_code == 1
    assert "unauthorized_client" in result.stderr
    assert sessions.bearer(HERE) == bearer
    assert JWT not in result.output
