"""An agent in Node without our client: the .proto files, grpc-js and the vendor's own SDK are all it has."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.e2e.conftest import running

from leasehold.operators import selector

HERE = Path(__file__).parent
PROTO = HERE.parent.parent / "proto"


@pytest.fixture(scope="module")
def modules():
    """The packages of the agent, where `make interop` has installed them."""
    if shutil.which("node") is None or not (HERE / "agent" / "node_modules").is_dir():
        pytest.skip("there is no node, or 'make interop' has not installed its packages")


def refusal(code, reason):
    """As any client of gRPC's rich errors reads it."""
    return {"code": code, "reason": reason, "domain": "leasehold.dev"}


EXPECTED = {
    "health": {"status": "SERVING"},
    "health of the service": {"status": "SERVING"},
    "health of no service": {"code": "NOT_FOUND"},
    "without the static metadata": refusal("INVALID_ARGUMENT", "METADATA_MISSING"),
    "without a token": refusal("UNAUTHENTICATED", "IDENTITY_REJECTED"),
    "without a deadline": refusal("INVALID_ARGUMENT", "DEADLINE_MISSING"),
    "with a request id that is none": refusal("INVALID_ARGUMENT", "FIELD_INVALID"),
    "a lease of nobody": refusal("NOT_FOUND", "LEASE_NOT_FOUND"),
    "the same request again": {"same": True},
    "called": {"text": True},
    "renewed": {"count": 1},
    "acquired": {},
    "revoked": {"first": "LEASE_STATE_ACTIVE", "last": "LEASE_STATE_REVOKED", "end": "ended"},
    "called after": {"kind": "PermissionDeniedError", "status": 403, "reason": "LEASE_REVOKED"},
    "renewed after": refusal("PERMISSION_DENIED", "LEASE_REVOKED"),
}


@pytest.mark.timeout(300)
def test_an_agent_needs_nothing_of_ours_but_the_contract(modules, tmp_path):
    """It acquires, calls, renews, is cut by a revocation, and learns the reason of each refusal."""
    with running() as house:
        token = house.stage.workload("node", "agents/research/node", team="research")
        command = ["node", HERE / "agent" / "agent.mjs", house.stage.sidecar_target("sidecar-a"), token, PROTO]
        said = {}
        with (
            (tmp_path / "errors").open("w") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as agent,
        ):
            try:
                for line in agent.stdout:
                    told = json.loads(line)
                    said[told.pop("what")] = told
                    if "name" in told:
                        with house.operator() as operator:
                            operator.revoke(selector(lease=told["name"]), note="interop")
                assert agent.wait(60) == 0, (tmp_path / "errors").read_text()
            finally:
                agent.kill()
    said["acquired"].clear()
    assert said == EXPECTED
