"""What the client's tests share: a fake sidecar on a Unix socket, and a token file that it accepts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.lease_server import LeaseServer, Running, serve
from tests.fakes.operator_server import AuditServer, RevocationServer
from tests.fakes.operator_server import serve as serve_collector

from leasehold import LeaseholdClient

JWT = "aGVhZA.Ym9keQ.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEASEHOLD_SOCKET", "LEASEHOLD_ADDRESS", "LEASEHOLD_TOKEN_FILE", "LEASEHOLD_COLLECTOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def leases() -> LeaseServer:
    """A fake sidecar, not served yet."""
    return LeaseServer()


@pytest.fixture
def running(leases: LeaseServer, tmp_path: Path) -> Iterator[Running]:
    """The fake sidecar, served."""
    server = serve(leases, tmp_path / "agent.sock")
    yield server
    server.stop()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with a workload token."""
    path = tmp_path / "token"
    path.write_text(JWT + "\n")
    return path


@pytest.fixture
def client(running: Running, token_file: Path) -> Iterator[LeaseholdClient]:
    """A blocking client of the fake sidecar."""
    with LeaseholdClient(running.target, token_file, timeout_seconds=60) as made:
        yield made


@pytest.fixture
def log() -> AuditServer:
    """A fake audit log."""
    return AuditServer()


@pytest.fixture
def revocations() -> RevocationServer:
    """A fake revocation service."""
    return RevocationServer()


@pytest.fixture
def collector(log: AuditServer, revocations: RevocationServer, tmp_path: Path) -> Iterator[Running]:
    """Both, served."""
    server = serve_collector(log, revocations, tmp_path / "collector.sock")
    yield server
    server.stop()
