"""Findings and security events where two real collectors share one log and the one that does the work is killed.

What was found is found once, what was ended is told to the receiver until it has it, what another system says revokes
once: nothing is lost with the process, and what comes twice has the same id.
"""

import asyncio
import http.server
import json
import tempfile
import threading
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import eventually
from tests.fakes.issuer import jwk, jwks, rsa_key, sign
from tests.fakes.receivers import HttpReceiver
from tests.fakes.rotating_replicas import RotatingReplicas
from tests.fakes.streams import Emitter
from tests.processes.tokens import ISSUER

from leasehold_broker.adapters.signal_key import SignalKey
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject

pytestmark = pytest.mark.timeout(300)
KEY = rsa_key("transmitter")
SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
SUBJECTS = 12
SIGNALS = 7
"""More than one answer of a transmitter holds."""
MORE = """
[anomalies]
enabled = true
calls_min = 3
[anomalies.respond]
new_route = "block-subject"
revocations_per_hour_max = 1000
[signals]
address = "127.0.0.1:0"
issuer = "https://collector.example"
key_file = "{root}/signals.key"
[[signals.send]]
name = "siem"
audience = "https://siem.example"
push_url = "{siem}/events"
[[signals.receive]]
name = "idp"
issuer = "https://idp.example/"
audience = "https://collector.example/"
algorithms = ["RS256"]
jwks_file = "{root}/idp.json"
subject_issuers = {{ "https://idp.example/" = "{issuer}" }}
poll_url = "{idp}/poll"
poll_seconds = 1.0
"""


class Transmitter:
    """Another system that is polled; it can hold the question that brings the acknowledgements."""

    def __init__(self) -> None:
        """Nothing is to be told."""
        self.pending: dict[str, str] = {}
        self.given: list[str] = []
        self.hold, self.asked_again = threading.Event(), threading.Event()
        self.hold.set()
        transmitter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if question.get("ack"):
                    transmitter.asked_again.set()
                    if not transmitter.hold.wait(60):
                        return
                data = json.dumps({"sets": transmitter.answer(question)}).encode()
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    return  # whoever asked is dead

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, question: dict) -> dict[str, str]:
        """RFC 8936, section 2.2."""
        for name in question.get("ack", []):
            self.pending.pop(name, None)
        sets = dict(list(self.pending.items())[: question["maxEvents"]])
        self.given += sets
        return sets

    def __enter__(self):
        """Serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def session_revoked(number: int) -> str:
    """A token of the other system about one of its users."""
    said = {
        "iss": "https://idp.example/",
        "aud": "https://collector.example/",
        "jti": f"signal-{number}",
        "iat": int(time.time()),
        "sub_id": {"format": "iss_sub", "iss": "https://idp.example/", "sub": f"user-{number}"},
        "events": {SESSION_REVOKED: {"event_timestamp": int(time.time())}},
    }
    return sign(said, KEY, "RS256", kid="k", typ="secevent+jwt")


def happenings(number: int) -> list[Event]:
    """An agent makes its usual calls, then one to somewhere new; its lease is revoked."""
    subject, lease, wall_ms = Subject(ISSUER, f"agent-{number}"), f"leases/{number}", int(time.time() * 1000)

    def event(type_, **details):
        return Event(type_, wall_ms, Outcome.ALLOWED, None, subject, lease, "", details)

    calls = [
        event(EventType.CALL_ADMITTED, provider=provider, operation="messages", model="m")
        for provider in ("usual",) * 4 + ("new",)
    ]
    return [*calls, event(EventType.LEASE_REVOKED, revocation="revocations/1")]


@pytest.fixture
def world(postgres):
    """Two replicas; a receiver of our events, and a system that has some for us."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder, HttpReceiver() as siem, Transmitter() as idp:
        root = Path(folder)
        (root / "idp.json").write_bytes(jwks(jwk(KEY, kid="k", use="sig", alg="RS256")))
        SignalKey(root / "signals.key")
        more = MORE.format(root=root, siem=siem.url, idp=idp.url, issuer=ISSUER)
        yield RotatingReplicas(root, siem.url, postgres, more=more), siem, idp


def logged(replicas, name, kind):
    """Events of a type, in order."""
    with replicas.operators(name) as client:
        return [record.event() for record in client.events(type=kind)]


def test_what_is_found_told_and_heard_survives_the_replica_that_was_at_it(world):
    """Kill -9 while a receiver and a transmitter wait for it: the other goes on, nothing is lost or done twice."""
    replicas, siem, idp = world

    async def happen(numbers):
        async with replicas.engine.open("probe", stream="probe") as store:
            emitter = Emitter("sidecar-1", "1")
            for number in numbers:
                records = [emitter.emit(event) for event in happenings(number)]
                await store.append("sidecar-1", records, int(time.time() * 1000))

    with replicas.process("east") as east, replicas.process("west"):
        siem.hold.clear()
        idp.hold.clear()
        idp.pending.update({f"signal-{number}": session_revoked(number) for number in range(SIGNALS)})
        asyncio.run(happen(range(SUBJECTS)))
        assert siem.reached.wait(60), "a token is on its way, and its answer is not there"
        assert idp.asked_again.wait(60), "tokens are taken, and their acknowledgement has not come"
        east.kill()
        east.wait(30)
        siem.hold.set()
        idp.hold.set()
        assert eventually(lambda: not idp.pending)
        assert eventually(lambda: len(logged(replicas, "west", "finding.new_route")) >= SUBJECTS)
        assert eventually(lambda: len({body for _, _, body in siem.requests}) >= SUBJECTS)
        found = logged(replicas, "west", "finding.new_route")
        issued = logged(replicas, "west", "revocation.issued")
        heard = logged(replicas, "west", "signal.received")
    agents = sorted(f"agent-{number}" for number in range(SUBJECTS))
    users = [f"user-{number}" for number in range(SIGNALS)]
    assert sorted(one["subject"]["subject"] for one in found) == agents
    revoked = sorted(one["details"]["selector"]["subject"]["subject"] for one in issued)
    assert revoked == sorted([*agents, *users]), "each once"
    assert {one["details"]["token_id"] for one in heard} == {f"signal-{number}" for number in range(SIGNALS)}
    assert len(idp.given) > SIGNALS, "what was not acknowledged was given again"
    tokens = [body for _, _, body in siem.requests]
    assert len(tokens) > len(set(tokens)) == SUBJECTS, "what is told again is the same, to the byte"
