"""Hostile processes on the same node, of another user and of the broker's own, against a real sidecar.

The main case is another user: the sidecar runs under a uid of its own. A process of the *same* uid can read the files
of that uid, master key included; against it the memory alone holds, and that is tested. Needs root, to become others.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.fakes.secret_scan import Scanner
from tests.unkind.other_users import AGENT, BROKER, GROUP, OTHER, as_user, interpreter, run_as

ATTACKS = Path(__file__).with_name("neighbour_attacks.py")
DETECTED_SECONDS_MAX = 30.0
ANYONE_MAY_KNOW = {"pagemap"}
"""Opening it is allowed to all; without rights it holds zeros in place of addresses."""

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("other_users"),
]


@contextmanager
def node():
    """A sidecar of user BROKER; where it is, and what was planted."""
    folder = Path(tempfile.mkdtemp(prefix="leasehold-"))
    try:
        os.chown(folder, BROKER, BROKER)
        command = [interpreter(), "-m", "tests.unkind.neighbour_stage", str(folder), str(GROUP)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **as_user(BROKER, GROUP)
        ) as process:
            line = process.stdout.readline()
            try:
                yield {"folder": folder, **json.loads(line)}
            finally:
                process.stdin.close()
                process.wait(60)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def sidecar():
    """The sidecar that these tests share; none ends it."""
    with node() as where:
        yield where


def attacked(uid, pid, groups=()):
    """What each attempt gave, and the loot."""
    with ExitStack() as stack:
        loot = stack.enter_context(tempfile.TemporaryFile())
        program = (
            "import os, runpy, sys; os.dup2(int(sys.argv[2]), 3); runpy.run_path(sys.argv[3], run_name='__main__')"
        )
        done = subprocess.run(
            [interpreter(), "-c", program, str(pid), str(loot.fileno()), str(ATTACKS)],
            **as_user(uid, *groups),
            pass_fds=[loot.fileno()],
            capture_output=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        loot.seek(0)
        return json.loads(done.stdout), loot.read()


def got(results):
    """The attempts that gave anything, except what tells nothing."""
    return {name for name, result in results.items() if result.startswith("got") and result != "got 0 bytes"}


def scanner(where):
    """Looks for what was planted."""
    return Scanner({f"key {n}": key.encode() for n, key in enumerate(where["keys"])})


ACQUIRE = """
import sys
from pathlib import Path
from leasehold import LeaseholdClient, Scope
from leasehold.http import anthropic_kwargs
import anthropic
token = Path("/tmp") / f"jwt-{sys.argv[2][-12:]}"
token.touch(mode=0o600); token.write_text(sys.argv[2])
with LeaseholdClient("unix://" + sys.argv[1], token) as client:
    lease = client.acquire(provider="anthropic", budget="0.01", renew=False)
    kwargs = anthropic_kwargs(lease)
    with anthropic.Anthropic(**kwargs) as claude:
        claude.messages.create(model="claude-haiku-5-5", max_tokens=20, messages=[{"role": "user", "content": "Hello"}])
    print(lease.token.reveal(), kwargs["base_url"], lease.name)
    lease.abandon()
token.unlink()
"""
SPEND = """
import sys, http.client
from urllib.parse import urlsplit
connection = http.client.HTTPConnection("127.0.0.1", urlsplit(sys.argv[2]).port, timeout=20)
connection.request("POST", "/anthropic/v1/messages", b'{"model":"claude-haiku-5-5","max_tokens":5,"messages":[]}',
                   {"content-type": "application/json", "x-api-key": sys.argv[1], "anthropic-version": "2023-06-01"})
answer = connection.getresponse()
print(answer.status, answer.headers["leasehold-reason"])
"""
REACH = """
import os, socket, sys
path, results = sys.argv[1], []
def tried(name, act):
    try:
        act()
        results.append(name)
    except OSError:
        pass
tried("connect", lambda: socket.socket(socket.AF_UNIX).connect(path))
tried("unlink", lambda: os.unlink(path))
tried("rename", lambda: os.rename(path, path + ".old"))
tried("bind", lambda: socket.socket(socket.AF_UNIX).bind(path))
tried("bind beside", lambda: socket.socket(socket.AF_UNIX).bind(path + "2"))
tried("lock", lambda: os.open(path + ".lock", os.O_RDWR))
for folder, _, names in os.walk(sys.argv[2]):
    for name in names:
        tried("read " + name, lambda: open(os.path.join(folder, name), "rb").read(1))
for name in ("keys/keys.json", "keys/master.key", "sidecar-a.toml", "policy.toml", "state/sidecar-a/state.db",
             "logs/sidecar-a.log", "tokens/agent.jwt"):
    tried("read " + name, lambda: open(os.path.join(sys.argv[2], name), "rb").read(1))
print(",".join(results))
"""
PRIVATE = """
import sys, uuid
import grpc
from leasehold.v1 import lease_service_pb2 as messages, lease_service_pb2_grpc as services, types_pb2
names = {line.split()[-1][1:] for line in open("/proc/net/unix") if line.split()[-1].startswith("@leasehold-")}
answers = set()
for name in sorted(names):
    with grpc.insecure_channel("unix-abstract:" + name, [("grpc.default_authority", "localhost")]) as channel:
        stub = services.LeaseServiceStub(channel)
        try:
            stub.AcquireLease(
                messages.AcquireLeaseRequest(
                    request_id=str(uuid.uuid4()), scopes=[types_pb2.Scope(provider="anthropic")]
                ),
                metadata=[("leasehold", "1"), ("authorization", "Bearer " + sys.argv[1])], timeout=60)
            answers.add("GRANTED")
        except grpc.RpcError as error:
            answers.add(error.code().name)
print(len(names) > 0, ",".join(sorted(answers)))
"""
WATCH = """
import os, select, sys, time
held = {}
print("watching", flush=True)
while not select.select([sys.stdin], [], [], 0.0005)[0]:
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                if os.stat("/proc/" + name).st_uid == os.getuid():
                    mem = os.open(f"/proc/{name}/mem", os.O_RDONLY)
                    held.setdefault(name, []).append((mem, os.open(f"/proc/{name}/maps", os.O_RDONLY)))
            except OSError:
                continue
            if len(held.get(name, ())) > 3:
                for one in held[name].pop(0):
                    os.close(one)
for name in sys.stdin.readline().split():
    for mem, maps in held.get(name, ()):
        with os.fdopen(maps) as lines:
            try:
                regions = [line.split()[:2] for line in lines]
            except OSError:
                continue
        for span, mode in regions:
            first, last = (int(part, 16) for part in span.split("-"))
            if mode.startswith("rw"):
                try:
                    os.write(3, os.pread(mem, last - first, first))
                except (OSError, OverflowError):
                    continue
print(len(held), flush=True)
"""
DECOY = """
import sys
secret = bytearray(b"sk-decoy-" + b"0123456789abcdef" * 2)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("uid", [BROKER, AGENT, OTHER], ids=["same uid", "the agent", "a stranger"])
@pytest.mark.parametrize("process", ["pid", "collector_pid"])
def test_no_neighbour_reads_a_brokers_memory(sidecar, uid, process):
    """Not through /proc, ptrace, process_vm_readv, pidfd, limits or a debugger; also not one of the very same uid."""
    results, loot = attacked(uid, sidecar[process])
    assert got(results) - ANYONE_MAY_KNOW == set()
    assert scanner(sidecar).hits("loot", loot) == []
    assert len(results) >= 20


def test_the_same_attempts_do_work_on_a_process_that_is_not_hardened():
    """Positive control: a plain process of the same uid is read through nearly every way, and its secret is found."""
    with subprocess.Popen(
        [interpreter(), "-c", DECOY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **as_user(BROKER)
    ) as decoy:
        assert decoy.stdout.readline() == b"ready\n"
        results, loot = attacked(BROKER, decoy.pid)
        decoy.stdin.close()
    ways = {"environ", "maps", "fd", "exe", "mem", "process_vm_readv", "ptrace attach", "ptrace seize", "pidfd_getfd"}
    assert ways <= got(results)
    assert Scanner({"decoy": b"sk-decoy-" + b"0123456789abcdef" * 2}).hits("loot", loot)


@contextmanager
def watched(loot):
    """A process of the broker's own uid that opens the memory of whatever starts; told pids, it reads what it holds."""
    program = "import os, sys; os.dup2(int(sys.argv[1]), 3); exec(sys.argv[2])"
    command = [interpreter(), "-c", program, str(loot.fileno()), WATCH]
    with subprocess.Popen(
        command,
        **as_user(BROKER, GROUP),
        pass_fds=[loot.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "watching\n"

        def read(*pids):
            held, _ = process.communicate(" ".join(map(str, pids)) + "\n", timeout=120)
            assert int(held) > 0
            loot.seek(0)
            return loot.read()

        yield read


def test_who_waits_for_a_broker_to_start_reads_nothing():
    """A process of the same uid that opens the memory of everything as it starts has nothing of a broker."""
    with tempfile.TemporaryFile() as loot, watched(loot) as read, node() as where:
        run_as(AGENT, ACQUIRE, where["socket"], where["jwt"], groups=[GROUP])
        assert scanner(where).hits("memory", read(where["pid"], where["collector_pid"])) == []


def test_who_waits_does_read_a_process_that_hardens_itself_late():
    """Positive control: what calls prctl after its start is read through descriptors that were opened before."""
    late = "import ctypes, time; time.sleep(1); ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n" + DECOY
    with (
        tempfile.TemporaryFile() as loot,
        watched(loot) as read,
        subprocess.Popen(
            [interpreter(), "-c", late], **as_user(BROKER), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process,
    ):
        process.stdout.readline()
        assert b"sk-decoy-0123456789abcdef" in read(process.pid)
        process.stdin.close()


def test_a_stolen_lease_token_is_useless_to_another_user(sidecar):
    """The agent's token works for the agent alone; nobody else is even told that the lease exists."""
    token, base, _ = run_as(AGENT, ACQUIRE, sidecar["socket"], sidecar["jwt"], groups=[GROUP]).split()
    assert run_as(OTHER, SPEND, token, base) == "401 LEASE_UNKNOWN"
    assert run_as(BROKER, SPEND, token, base) == "401 LEASE_UNKNOWN"
    assert run_as(AGENT, SPEND, token, base).split()[0] != "401"


def test_a_stranger_reaches_neither_socket_nor_files(sidecar):
    """No connecting, no removing, no standing in, no reading: key store, master key, state, logs, configuration."""
    assert run_as(OTHER, REACH, sidecar["socket"], str(sidecar["folder"])) == ""


def test_the_agent_may_connect_and_nothing_else(sidecar):
    """A member of the socket's group; the folder stays the broker's."""
    assert run_as(AGENT, REACH, sidecar["socket"], str(sidecar["folder"]), groups=[GROUP]) == "connect"


@pytest.mark.parametrize("uid", [BROKER, AGENT, OTHER], ids=["same uid", "the agent", "a stranger"])
def test_the_private_leg_is_of_no_use(sidecar, uid):
    """Whoever finds gRPC's private abstract socket and has a valid workload token is refused all the same."""
    found, answers = run_as(uid, PRIVATE, sidecar["jwt"]).split()
    assert found == "True"
    assert "GRANTED" not in answers


def test_a_stolen_socket_path_is_noticed():
    """A process of the same uid that puts its own socket in place makes the sidecar stop, and gets no key."""
    steal = "import os, socket, sys; p = sys.argv[1]; os.rename(p, p + '.old'); socket.socket(socket.AF_UNIX).bind(p)"
    with node() as where:
        run_as(BROKER, steal, where["socket"])
        started = time.monotonic()
        while running(where["pid"]) and time.monotonic() - started < DETECTED_SECONDS_MAX:
            time.sleep(0.1)
        assert not running(where["pid"])
        assert "taken over by another process" in (where["folder"] / "logs/sidecar-a.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGQUIT])
def test_a_forced_crash_leaves_no_core(number):
    """A process of the same uid may end the sidecar, but there is nothing to read afterwards."""
    with node() as where:
        kill = "import os, sys; os.kill(int(sys.argv[1]), int(sys.argv[2]))"
        before = {*where["folder"].rglob("core*"), *Path("/").glob("core*")}
        run_as(BROKER, kill, str(where["pid"]), str(int(number)))
        started = time.monotonic()
        while running(where["pid"]) and time.monotonic() - started < DETECTED_SECONDS_MAX:
            time.sleep(0.05)
        assert not running(where["pid"])
        assert before == {*where["folder"].rglob("core*"), *Path("/").glob("core*")}


def running(pid):
    """True while the process lives; one that is only waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
