"""The jobs of deploy/ci, line for line as their runners start them, against a real collector, with the job's own token.

The issuer is a server on this machine that signs what GitHub's and GitLab's say; its table at the collector is that of
deploy/keys/rotations.toml, but for where it is. The files are checked by the schemas that their makers publish.
"""

import http.server
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from tests.fakes.issuer import jwk, jwks, rsa_key, sign
from tests.fakes.planted import MARKER, planted
from tests.fakes.rotating_provider import rotating_provider
from tests.fakes.rotation_stage import KEY, RotationStage
from tests.fakes.shipped_schemas import verdict

from leasehold import PermissionDenied
from leasehold.v1 import key_service_pb2 as pb

pytestmark = [pytest.mark.timeout(240)]
DEPLOY = Path(__file__).parents[2] / "deploy"
GITHUB, GITLAB = DEPLOY / "ci" / "github-actions.yml", DEPLOY / "ci" / "gitlab-ci.yml"
EXAMPLE = (DEPLOY / "keys" / "rotations.toml").read_text()
CLAIMS = tomllib.loads(EXAMPLE)["pipelines"][0]["claims"]
AUDIENCE = "leasehold-collector"
RUNNER_SECRET = "of-the-runner"
GITHUBS = "https://token.actions.githubusercontent.com"


class Issuer:
    """Signs tokens of jobs, shows its keys, and answers a runner's request for its job's token, as GitHub's does."""

    def __init__(self):
        """Asked nothing yet."""
        self.asked = []
        self.origin = ""

    def token(self, subject, audience=AUDIENCE, **claims):
        """What a job shows."""
        now = int(time.time())
        body = {"iss": self.origin, "sub": subject, "aud": audience, "iat": now, "nbf": now - 5, "exp": now + 300}
        return sign(body | claims, rsa_key("ci"), "RS256", kid="ci")

    def answer(self, path, authorization):
        """Status and body."""
        at = urlsplit(path)
        if at.path == "/.well-known/jwks":
            return 200, jwks(jwk(rsa_key("ci"), kid="ci", use="sig"))
        self.asked.append(path)
        if at.path != "/token" or authorization != f"bearer {RUNNER_SECRET}":
            return 401, b"{}"
        (audience,) = parse_qs(at.query)["audience"]
        value = self.token("repo:acme/agents:environment:production", audience, **CLAIMS)
        return 200, json.dumps({"count": 1, "value": value}).encode()


@pytest.fixture(scope="module")
def issuer():
    """It, served."""
    found = Issuer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            status, body = found.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.origin = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def world(issuer):
    """A collector without sidecars that knows the pipelines of the example, and the provider."""
    begin, end = EXAMPLE.index("[[pipelines]]"), EXAMPLE.index("# Who may rotate and supply keys")
    tables = EXAMPLE[begin:end].replace(GITHUBS, issuer.origin).replace("openai-prod", KEY)
    with tempfile.TemporaryDirectory(prefix="lh-") as folder, rotating_provider() as (account, origin):
        stage = RotationStage(Path(folder), origin, more=tables)
        with stage.process("collector"):
            yield account, stage


def run(script, stage, shell=("bash", "-e"), **variables):
    """A job's lines in a file, as its runner starts them; pip has no index, so what is not here cannot be installed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ours = {"PATH": path, "HOME": str(stage.root), "LEASEHOLD_COLLECTOR": stage.centre, "KEY": KEY, "PIP_NO_INDEX": "1"}
    (stage.root / "script.sh").write_text(script)
    return subprocess.run(
        [*shell, str(stage.root / "script.sh")],
        env={**ours, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", **variables},
        cwd=stage.root,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def used(script):
    """Variables that a script uses and does not set itself."""
    return set(re.findall(r"\$([A-Z][A-Z_]+)", script))


@pytest.mark.parametrize(
    ("file", "schema", "wrong"),
    [
        (GITHUB, "vendor.github-workflows", ("runs-on:", "run-on:")),
        (GITLAB, "vendor.gitlab-ci", ("script:", "skript:")),
    ],
)
def test_the_files_are_what_their_makers_schemas_say(file, schema, wrong, tmp_path):
    """As they stand; and a slip of the pen is seen."""
    assert verdict(schema, file) == 0
    assert wrong[0] in file.read_text()
    (tmp_path / file.name).write_text(file.read_text().replace(*wrong))
    assert verdict(schema, tmp_path / file.name) == 1


def test_the_github_workflow_rotates_once_per_run(world, issuer):
    """Both its steps: the client is there, the job's token is asked for; run again, it is the same rotation."""
    account, stage = world
    workflow = yaml.safe_load(GITHUB.read_text())
    job = workflow["jobs"]["rotate"]
    install, rotate = (step["run"] for step in job["steps"])
    github = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{issuer.origin}/token?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": RUNNER_SECRET,
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "acme/agents",
        "GITHUB_RUN_ID": "1000",
    }
    assert workflow["permissions"] == {"id-token": "write"}
    assert used(rotate) <= {*github, *job["env"]}
    installed = run(install, stage)
    assert (installed.returncode, installed.stderr) == (0, "")
    minted = account.minted
    done = run(rotate, stage, **github)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith("is done")
    again = run(rotate, stage, **github)
    assert again.stdout.splitlines() == [done.stdout.splitlines()[-1]]
    assert account.minted == minted + 1
    assert issuer.asked[0] == f"/token?api-version=2.0&audience={AUDIENCE}"
    started = next(event for event in stage.events("key.rotation_started"))
    assert started["details"]["trigger"] == "pipeline"
    assert started["subject"]["subject"] == "repo:acme/agents:environment:production"
    assert MARKER not in done.stdout + done.stderr
    assert "eyJ" not in done.stdout + done.stderr


def test_the_github_workflow_without_a_token_fails_and_rotates_nothing(world, issuer):
    """`permissions` was forgotten, so that the runner's request is refused: the step ends, as a failed one."""
    account, stage = world
    rotate = yaml.safe_load(GITHUB.read_text())["jobs"]["rotate"]["steps"][-1]["run"]
    minted, names = account.minted, ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    at = {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{issuer.origin}/token?a=1", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "another"}
    done = run(rotate, stage, **at, **dict.fromkeys(names, "x"))
    assert done.returncode != 0
    assert account.minted == minted


@pytest.mark.parametrize("shell", [("bash", "-eo", "pipefail"), ("sh", "-e")])
def test_the_gitlab_job_rotates(world, issuer, shell):
    """All its lines, in either shell that an image may have: the client is there, the job's token is shown."""
    account, stage = world
    job = yaml.safe_load(GITLAB.read_text())["rotate-key"]
    script = "\n".join([*job["before_script"], *job["script"]])
    (token,) = job["id_tokens"]
    number = str(len(shell))
    gitlab = {
        "CI_PIPELINE_URL": f"https://gitlab.com/acme/agents/-/pipelines/{number}",
        "CI_PIPELINE_ID": number,
        token: issuer.token("project_path:acme/agents", job["id_tokens"][token]["aud"], **CLAIMS),
    }
    assert used(script) <= {*gitlab, *job["variables"]}
    minted = account.minted
    done = run(script, stage, shell, **gitlab)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith("is done")
    assert account.minted == minted + 1
    again = run(script, stage, shell, **gitlab)  # the job is retried
    assert (again.returncode, account.minted) == (0, minted + 1)


@pytest.mark.parametrize(
    "claims",
    [{}, {"repository": "acme/agents"}, {**CLAIMS, "repository": "evil/agents"}, {**CLAIMS, "environment": "x"}],
)
def test_another_pipeline_of_the_same_issuer_is_refused(world, issuer, claims):
    """Every claim of the rule must be there as it says: nothing is minted, and the audit log says who it was."""
    account, stage = world
    minted, refused = account.minted, len(stage.refusals())
    with stage.custodian(issuer.token("stranger", **claims)) as client:
        with pytest.raises(PermissionDenied):
            client.rotate(KEY)
        with pytest.raises(PermissionDenied):
            list(client.rotations())
    assert account.minted == minted
    last = stage.refusals()[refused]
    assert (last["type"], last["reason"]) == ("key.rotation_refused", "OPERATOR_NOT_ALLOWED")
    assert "'stranger'" in last["details"]["detail"]


def test_a_pipeline_may_rotate_its_keys_and_see_nothing_else(world, issuer):
    """Another key, all rotations, supplying a key: refused. Its own key's rotations are shown."""
    _, stage = world
    with stage.custodian(issuer.token("project", **CLAIMS)) as client:
        with pytest.raises(PermissionDenied):
            client.rotate("anthropic-prod")
        with pytest.raises(PermissionDenied, match="of all keys; name one"):
            list(client.rotations())
        with pytest.raises(PermissionDenied):
            client.supply(KEY, planted("by-pipeline"))
        assert {each.state for each in client.rotations(KEY)} <= {pb.ROTATION_STATE_DONE}
