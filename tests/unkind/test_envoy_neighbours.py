"""Sidecar, Envoy, agent and a hostile neighbour as four users: who is not Envoy can speak for nobody.

Needs root, to become others.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.fakes import envoy
from tests.fakes.envoy import RESEARCHER, Envoy
from tests.unkind.other_users import AGENT, BROKER, GROUP, OTHER, as_user, interpreter, run_as

ENVOY = 61004
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("other_users"),
    pytest.mark.skipif(envoy.installed() is None, reason="no Envoy here: make .venv/envoy.stamp"),
]

THROUGH_ENVOY = """
import json, ssl, sys
from pathlib import Path
import anthropic
from leasehold import LeaseholdClient, TlsFiles
from leasehold.http import anthropic_kwargs
where = json.loads(sys.argv[1])
mesh = TlsFiles(*where["shown"])
context = ssl.create_default_context(cafile=mesh.ca_file)
context.load_cert_chain(mesh.certificate_file, mesh.key_file)
with LeaseholdClient(f"127.0.0.1:{where['port']}", lambda: where["jwt"], tls=mesh) as broker:
    lease = broker.acquire(provider="anthropic", budget="0.01", renew=False)
    shown = anthropic.DefaultHttpxClient(verify=context)
    with anthropic.Anthropic(**anthropic_kwargs(lease), http_client=shown) as claude:
        claude.messages.create(model="claude-haiku-5-5", max_tokens=20, messages=[{"role": "user", "content": "Hello"}])
    print(lease.token.reveal())
    lease.abandon()
"""
BESIDE_ENVOY = """
import http.client, json, socket, sys
where, token = json.loads(sys.argv[1]), sys.argv[2]
answers = []
for headers in ({"x-forwarded-client-cert": sys.argv[3]}, {}):
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(where["egress"])
    except PermissionError:
        answers.append("no way in")
        continue
    connection.request("GET", "/anthropic/v1/models", headers={"x-api-key": token, **headers})
    answers.append(connection.getresponse().headers["leasehold-reason"])
print(",".join(answers))
"""
NAME_ITSELF = """
import json, sys, uuid
import grpc
from leasehold.v1 import lease_service_pb2 as messages, lease_service_pb2_grpc as services, types_pb2
where = json.loads(sys.argv[1])
with grpc.insecure_channel("unix://" + where["socket"], [("grpc.default_authority", "localhost")]) as channel:
    try:
        lease = services.LeaseServiceStub(channel).AcquireLease(
            messages.AcquireLeaseRequest(request_id=str(uuid.uuid4()), scopes=[types_pb2.Scope(provider="anthropic")]),
            metadata=[("leasehold", "1"), ("authorization", "Bearer " + where[sys.argv[3]]),
                      ("x-forwarded-client-cert", sys.argv[2])], timeout=30).lease
        print("bound to", lease.binding.certificate_sha256 or lease.binding.uid)
    except grpc.RpcError as error:
        print(error.code().name)
"""


@pytest.fixture(scope="module")
def where():
    """A sidecar of one user, and an Envoy of another in front of it, which may read its own certificate alone."""
    folder = Path(tempfile.mkdtemp(prefix="leasehold-"))
    try:
        os.chown(folder, BROKER, BROKER)
        (folder / "envoy").mkdir(0o755)
        command = [interpreter(), "-m", "tests.unkind.envoy_stage", str(folder), str(GROUP), str(ENVOY)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **as_user(BROKER, GROUP)
        ) as stage:
            found = json.loads(stage.stdout.readline())
            _give(found)
            server = Envoy(folder / "envoy", "gateway", found.pop("config"), found["port"], **as_user(ENVOY, GROUP))
            try:
                server.start()
                yield found
            finally:
                server.stop()
                stage.stdin.close()
                stage.wait(60)
    finally:
        shutil.rmtree(folder)


def _give(found):
    """Each its own files: Envoy its key, the agent its own, everybody the certificates."""
    tls = Path(found["tls"])
    tls.chmod(0o755)
    for path in tls.iterdir():
        path.chmod(0o600 if path.suffix == ".key" else 0o644)
    os.chown(tls / "envoy.key", ENVOY, ENVOY)
    os.chown(found["shown"][2], AGENT, AGENT)


@pytest.fixture(scope="module")
def token(where):
    """The lease token of an agent that has called through Envoy."""
    return run_as(AGENT, THROUGH_ENVOY, json.dumps(where))


def test_only_envoy_speaks_for_an_agent(where, token):
    """A neighbour with the agent's lease token and its certificate's digest gets nowhere, not even in Envoy's group."""
    told, forged = json.dumps(where), f"Hash={where['digest']};URI={RESEARCHER}"

    assert run_as(OTHER, BESIDE_ENVOY, told, token, forged) == "no way in,no way in"
    assert run_as(OTHER, BESIDE_ENVOY, told, token, forged, groups=[GROUP]) == "LEASE_UNKNOWN,LEASE_UNKNOWN"


@pytest.mark.usefixtures("token")
def test_a_neighbour_that_names_itself_stays_who_it_is(where):
    """At the lease door its word is not heard: a stolen workload token is of no use, its own lease is its user's."""
    told, forged = json.dumps(where), f"Hash={where['digest']};URI={RESEARCHER}"

    assert run_as(OTHER, NAME_ITSELF, told, forged, "jwt", groups=[GROUP]) == "UNAUTHENTICATED"
    assert run_as(OTHER, NAME_ITSELF, told, forged, "other_jwt", groups=[GROUP]) == f"bound to {OTHER}"
