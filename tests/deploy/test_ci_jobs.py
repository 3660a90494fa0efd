"""The jobs of deploy/ci: their commands as they stand, against a real collector, with the job's own token."""

import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import yaml
from tests.fakes.planted import MARKER, planted
from tests.fakes.rotating_provider import rotating_provider
from tests.fakes.rotation_stage import KEY, RotationStage, signed
from tests.processes.tokens import ISSUER

from leasehold import PermissionDenied
from leasehold.v1 import key_service_pb2 as pb

pytestmark = [pytest.mark.timeout(240)]
CI = Path(__file__).parents[2] / "deploy" / "ci"
CLAIMS = {"repository": "acme/agents", "environment": "production"}
PIPELINE = f"""
[[pipelines]]
name = "release"
issuer = "{ISSUER}"
claims = {{ repository = "acme/agents", environment = "production" }}
keys = ["{KEY}"]
"""


@pytest.fixture(scope="module")
def world():
    """A collector without sidecars, and the provider."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder, rotating_provider() as (account, origin):
        stage = RotationStage(Path(folder), origin, more=PIPELINE)
        with stage.process("collector"):
            yield account, stage


@pytest.fixture
def token_service():
    """What GitHub's runner asks for the job's token: the answer, and what was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            asked.append((self.path, self.headers["Authorization"]))
            body = json.dumps({"value": signed("repo:acme/agents:environment:production", **CLAIMS)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/token?api-version=2.0", asked
    server.shutdown()
    server.server_close()
    thread.join()


def run(script, stage, **variables):
    """The job's step, as its runner starts it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(stage.root), "LEASEHOLD_COLLECTOR": stage.centre, "KEY": KEY, **variables}
    return subprocess.run(
        ["bash", "-e", "-c", script], env=environment, capture_output=True, text=True, timeout=150, check=False
    )


def test_the_github_workflow_rotates_once_per_run(world, token_service):
    """Its step asks for the job's token and waits for the end; run again, it is the same rotation."""
    account, stage = world
    url, asked = token_service
    job = yaml.safe_load((CI / "github-actions.yml").read_text())["jobs"]["rotate"]
    script = job["steps"][-1]["run"].replace("leasehold-collector", "leasehold")
    github = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": url,
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "acme/agents",
        "GITHUB_RUN_ID": "1000",
    }
    minted = account.minted
    done = run(script, stage, **github)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith("is done")
    again = run(script, stage, **github)
    assert again.stdout.splitlines() == [done.stdout.splitlines()[-1]]
    assert account.minted == minted + 1
    assert asked[0] == ("/token?api-version=2.0&audience=leasehold", "bearer runner")
    started = next(event for event in stage.events("key.rotation_started"))
    assert started["details"]["trigger"] == "pipeline"
    assert started["subject"]["subject"] == "repo:acme/agents:environment:production"
    assert MARKER not in done.stdout + done.stderr


def test_the_gitlab_job_rotates(world):
    """Its script shows the job's token and waits for the end."""
    account, stage = world
    job = yaml.safe_load((CI / "gitlab-ci.yml").read_text())["rotate-key"]
    gitlab = {"CI_PIPELINE_URL": "https://gitlab.com/acme/agents/-/pipelines/7", "CI_PIPELINE_ID": "7"}
    minted = account.minted
    done = run("\n".join(job["script"]), stage, LEASEHOLD_TOKEN=signed("project", **CLAIMS), **gitlab)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith("is done")
    assert account.minted == minted + 1


@pytest.mark.parametrize(
    "claims",
    [{}, {"repository": "acme/agents"}, {**CLAIMS, "repository": "evil/agents"}, {**CLAIMS, "environment": "x"}],
)
def test_another_pipeline_of_the_same_issuer_is_refused(world, claims):
    """Every claim of the rule must be there as it says: nothing is minted, and the audit log says who it was."""
    account, stage = world
    minted, refused = account.minted, len(stage.refusals())
    with stage.custodian(signed("stranger", **claims)) as client:
        with pytest.raises(PermissionDenied):
            client.rotate(KEY)
        with pytest.raises(PermissionDenied):
            list(client.rotations())
    assert account.minted == minted
    last = stage.refusals()[refused]
    assert (last["type"], last["reason"]) == ("key.rotation_refused", "OPERATOR_NOT_ALLOWED")
    assert "'stranger'" in last["details"]["detail"]


def test_a_pipeline_may_rotate_its_keys_and_see_nothing_else(world):
    """Another key, all rotations, supplying a key: refused. Its own key's rotations are shown."""
    _, stage = world
    with stage.custodian(signed("project", **CLAIMS)) as client:
        with pytest.raises(PermissionDenied):
            client.rotate("anthropic-prod")
        with pytest.raises(PermissionDenied, match="of all keys; name one"):
            list(client.rotations())
        with pytest.raises(PermissionDenied):
            client.supply(KEY, planted("by-pipeline"))
        assert {each.state for each in client.rotations(KEY)} <= {pb.ROTATION_STATE_DONE}
