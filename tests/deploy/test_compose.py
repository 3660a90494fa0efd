"""deploy/compose.yaml: valid by the schema of the Compose Specification, as closed as it says, and its commands run.

No container engine is here: each service's command runs in a plain process, on the files that the service mounts, laid
below a folder. What an engine would confine is not confined in these tests.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from tests.fakes.certificates import Authority
from tests.fakes.shipped_schemas import verdict

from leasehold_broker.demo.stage import broker

pytestmark = pytest.mark.timeout(600)
DEPLOY = Path(__file__).parents[2] / "deploy"
FILE = DEPLOY / "compose.yaml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "leasehold-broker:local"]
SCHEMA = "vendor.compose-spec"
SECONDS_MAX = 180


def test_it_is_valid_and_the_schema_notices_what_is_not(tmp_path):
    """As it stands; with one word misspelt it is not."""
    assert verdict(SCHEMA, FILE) == 0
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("read_only: true\n", "readonly: true\n", 1))
    assert verdict(SCHEMA, wrong) == 1


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_nothing_of_root_and_writes_only_its_own(name):
    """A read-only image, no capability, no way to gain one, a user of its own, and bounds on processes and dumps."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "ports"} & set(service)
    users = [each["user"] for each in SERVICES.values()]
    assert len(set(users)) == len(users)
    assert not any(user.startswith("0") for user in users)
    assert service["ulimits"]["core"] == 0
    assert service["pids_limit"]
    written = {mount["target"] for mount in service["volumes"] if not mount.get("read_only")}
    assert written <= {"/var/lib/leasehold", "/run/leasehold"}


def test_no_agent_reaches_a_key_or_a_network():
    """It mounts its token and the sockets' folder, read-only, and has loopback alone; the centre has no way out."""
    agent, document = SERVICES["agent"], yaml.safe_load(FILE.read_text())
    assert agent["network_mode"] == "none"
    assert [(mount["target"], mount["read_only"]) for mount in agent["volumes"]] == [
        ("/run/leasehold", True),
        ("/run/agent-token", True),
    ]
    assert document["networks"]["centre"]["internal"] is True
    assert SERVICES["collector"]["networks"] == ["centre"]
    keys = {
        mount["source"]: name
        for name, each in SERVICES.items()
        for mount in each["volumes"]
        if "key" in mount["source"]
    }
    assert keys == {"./compose/master.key": "sidecar"}


class Laid:
    """What a service mounts, below a folder; its command and its health check, on that."""

    def __init__(self, root: Path, name: str) -> None:
        """Lay its folders, and its configuration, with every path where it is here."""
        self.service = SERVICES[name]
        self.root = root / name
        self.root.mkdir(mode=0o700)
        for mount in self.service["volumes"]:
            place = self.at(mount["target"])
            folder = place.parent if place.suffix else place
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lay(DEPLOY / "compose" / f"{name}.toml", f"/etc/leasehold/{name}.toml")

    def at(self, target: str) -> Path:
        """Where a path of the container is here."""
        return self.root / target.strip("/")

    def moved(self, text: str) -> str:
        """With every mounted path where it is here."""
        for mount in self.service["volumes"]:
            text = text.replace(mount["target"], str(self.at(mount["target"])))
        return text

    def adapt(self, *pairs: tuple[str, str]) -> None:
        """Change lines of its configuration; each must be there."""
        config = next(self.at("/etc/leasehold").glob("*.toml"))
        text = config.read_text()
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        config.write_text(text)

    def command(self, *more: str) -> list[str]:
        """As an engine would start it."""
        return broker(*(self.moved(word) for word in self.service["command"]), *more)

    def healthy(self) -> bool:
        """What its health check says."""
        asked, *words = self.service["healthcheck"]["test"]
        assert asked == "CMD"
        test = [sys.executable if word == "python" else self.moved(word) for word in words]
        return subprocess.run(test, capture_output=True, check=False, timeout=30).returncode == 0

    @contextmanager
    def running(self):
        """Until it is healthy, and then; ended as an engine would."""
        with (self.root / "log").open("wb") as log, subprocess.Popen(self.command(), stderr=log) as process:
            try:
                deadline = time.monotonic() + SECONDS_MAX
                while not self.healthy():
                    assert process.poll() is None, (self.root / "log").read_text()[-2000:]
                    assert time.monotonic() < deadline, "never healthy"
                    time.sleep(0.1)
                yield
            finally:
                process.terminate()
                code = process.wait(SECONDS_MAX)
            assert code == 0, (self.root / "log").read_text()[-2000:]

    def _lay(self, source: Path, target: str) -> None:
        place = self.at(target)
        place.touch(0o600)
        place.write_text(self.moved(source.read_text()))


@pytest.fixture
def laid():
    """All of ours, with certificates, keys and a policy: as README.md beside it says, by other names."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        found = {name: Laid(Path(folder), name) for name in OURS}
        authority = Authority()
        for name, identity, ca in (
            ("collector", (), "sidecars-ca.crt"),
            ("sidecar", ("spiffe://leasehold.example/sidecar",), "collector-ca.crt"),
        ):
            tls = found[name].at("/etc/leasehold-tls")
            certificate, key = authority.issue(*identity).files(tls, "tls")
            certificate.rename(tls / "tls.crt")
            assert key == tls / "tls.key"
            (tls / ca).write_bytes(authority.pem)
        collector, sidecar = found["collector"], found["sidecar"]
        collector.adapt(("0.0.0.0:8790", "127.0.0.1:0"), ("uids = [65530]", f"uids = [{os.getuid()}]"))
        sidecar.adapt(
            ("127.0.0.1:8788", "127.0.0.1:0"),
            ("socket_gid = 65533", f"socket_gid = {os.getgid()}"),
        )
        store = ["--store", str(sidecar.at("/var/lib/leasehold/keys.json"))]
        store += ["--master-key-file", str(sidecar.at("/etc/leasehold-keys/master.key"))]
        subprocess.run(broker("keys", "init", *store), check=True, capture_output=True, timeout=120)
        policy = sidecar.at("/etc/leasehold-policy")
        (policy / "jwks.json").write_text('{"keys": []}')
        (collector.at("/etc/leasehold-tls") / "staff-jwks.json").write_text('{"keys": []}')
        (policy / "policy.toml").touch(0o600)
        (policy / "policy.toml").write_text((DEPLOY / "config" / "policy.toml").read_text())
        yield found


@pytest.mark.parametrize("name", OURS)
def test_a_command_takes_its_configuration(laid, name):
    """With --check: every file that it names is mounted, and every line is known."""
    checked = subprocess.run(laid[name].command("--check"), capture_output=True, text=True, check=False, timeout=120)
    assert checked.returncode == 0, checked.stderr
    text = laid[name].at(f"/etc/leasehold/{name}.toml").read_text()
    for beginning in ("/etc/", "/var/lib/", "/run/"):
        assert text.count(beginning) == text.count(f"{laid[name].root}{beginning}"), "it names what is not mounted"


def test_they_find_each_other_and_are_healthy_by_their_own_checks(laid):
    """Started in the order of depends_on: each health check fails before and holds then; the sidecar is connected."""
    assert not any(one.healthy() for one in laid.values())
    with ExitStack() as stack:
        stack.enter_context(laid["collector"].running())
        log = laid["collector"].root / "log"
        [serving] = [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "serving"]
        laid["sidecar"].adapt(("collector:8790", f"localhost:{serving['grpc_port']}"))
        stack.enter_context(laid["sidecar"].running())
        deadline = time.monotonic() + SECONDS_MAX
        while "sidecar connected" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)
