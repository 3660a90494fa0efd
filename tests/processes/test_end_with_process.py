"""A lease ends with its process, over the real door: real processes, and a sidecar that is killed meanwhile."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.fakes.issuer import ec_key, jwk, jwks
from tests.fakes.own_sidecar import GRANT, OwnSidecar
from tests.processes.tokens import ISSUER, token

from leasehold import InvalidRequest, LeaseEnded, LeaseholdClient
from leasehold import _methods as methods
from leasehold._messages import new_request_id
from leasehold.v1 import lease_service_pb2 as service

pytestmark = [pytest.mark.timeout(120)]
namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="making a PID namespace needs root and unshare"
)
AGENT = """
import sys
from leasehold import LeaseholdClient
with LeaseholdClient(sys.argv[1], sys.argv[2]) as client:
    lease = client.acquire(provider="openai", renew=False, end_with_process=True)
    lease.abandon()
print(lease.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def files():
    """A sidecar's files, below a path that is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        root = Path(folder)
        (root / "jwks.json").write_bytes(jwks(jwk(ec_key("process"), kid="k", use="sig")))
        issuers = f"""
[[issuers]]
name = "test"
kind = "oidc"
issuer = "{ISSUER}"
audience = "leasehold"
algorithms = ["ES256"]
replay = "off"
jwks_file = "{root}/jwks.json"
labels = {{ environment = {{ fixed = "test" }} }}
"""
        yield OwnSidecar(root, issuers, GRANT.format(name="test", issuer=ISSUER, extra=""))


@pytest.fixture
def sidecar(files):
    """It, running."""
    with files.running() as running:
        yield running


class Agent:
    """A process that acquires a lease, closes its connection, and waits to be ended."""

    def __init__(self, sidecar, *launcher: str) -> None:
        """Start it; it has its lease when this returns."""
        command = [*launcher, sys.executable, "-c", AGENT, sidecar.target, token()]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lease = self.process.stdout.readline().strip()

    def end(self) -> None:
        """End it without a goodbye."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def agent(sidecar):
    """One, with its lease."""
    made = Agent(sidecar)
    yield made
    made.end()


def ended(sidecar, name):
    """The event of a lease's end."""
    return sidecar.event("lease.released", lease=name)


def test_the_lease_outlives_its_connection_and_not_its_process(sidecar, agent):
    """The connection is closed and the lease lives; the process is killed and the lease ends, for that reason."""
    with LeaseholdClient(sidecar.target, token()) as client:
        assert client.get(agent.lease).state == "active"
        agent.end()
        last = list(client.watch(agent.lease))[-1]
    assert (last.state, last.reason) == ("released", "PROCESS_ENDED")
    assert ended(sidecar, agent.lease)["reason"] == "PROCESS_ENDED"
    acquired = sidecar.event("lease.acquired", lease=agent.lease)
    assert acquired["details"]["end_with_process"] is True


def test_a_process_that_is_gone_gets_no_renewal(sidecar, agent):
    """What is left of an ended lease says that it ended, and with what."""
    agent.end()
    ended(sidecar, agent.lease)
    with LeaseholdClient(sidecar.target, token()) as client, pytest.raises(LeaseEnded) as caught:
        client.link.call(methods.RENEW, service.RenewLeaseRequest(name=agent.lease, request_id=new_request_id()))
    assert caught.value.reason == "PROCESS_ENDED"


@pytest.mark.parametrize("gone", [False, True])
def test_a_killed_sidecar_finds_the_process_again_or_ends_the_lease(files, gone):
    """The next life ties the lease to its process again; where that has ended meanwhile, it ends the lease."""
    with files.running() as first:
        agent = Agent(first)
        first.kill()
    if gone:
        agent.end()
    with files.running() as second:
        with LeaseholdClient(second.target, token()) as client:
            assert client.get(agent.lease).state == ("released" if gone else "active")
        agent.end()
        assert ended(second, agent.lease)["reason"] == "PROCESS_ENDED"


@namespaces
def test_a_process_of_a_namespace_below_is_seen(sidecar):
    """The sidecar sees what runs in PID namespaces below its own, and so its end."""
    agent = Agent(sidecar, "unshare", "--pid", "--fork", "--kill-child")
    agent.end()
    assert ended(sidecar, agent.lease)["reason"] == "PROCESS_ENDED"


@namespaces
def test_a_process_that_cannot_be_seen_is_refused_by_name(files):
    """A sidecar in a PID namespace of its own, as in Kubernetes, sees no id: the sentence says so, and what to do."""
    with files.running("unshare", "--pid", "--fork", "--kill-child") as sidecar:
        with LeaseholdClient(sidecar.target, token()) as client, pytest.raises(InvalidRequest) as caught:
            client.acquire(provider="openai", renew=False, end_with_process=True)
        refusal = sidecar.event("lease.refused", request_id=caught.value.request_id)
        with LeaseholdClient(sidecar.target, token()) as client:
            client.acquire(provider="openai", renew=False).release()
        sidecar.kill()
    assert [violation.subject for violation in caught.value.violations] == ["end_with_process"]
    assert "in another PID namespace" in caught.value.message
    assert refusal["reason"] == "FIELD_INVALID"


def test_exec_killed_outright_leaves_no_lease(sidecar, tmp_path):
    """`leasehold exec --end-with-process`: its lease is its own process's, and ends when that is killed."""
    (tmp_path / "token").write_text(token())
    arguments = ["exec", "--end-with-process", "--sidecar", sidecar.target, "--token-file", str(tmp_path / "token")]
    script = "import os; print(os.environ['LEASEHOLD_LEASE'], flush=True); input()"
    command = [sys.executable, "-m", "leasehold.cli", *arguments, "--provider", "openai", "--quiet"]
    with subprocess.Popen(
        [*command, "--", sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        name = running.stdout.readline().strip()
        running.kill()
        assert ended(sidecar, name)["reason"] == "PROCESS_ENDED"
        running.stdin.close()
