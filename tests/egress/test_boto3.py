"""boto3 through the egress: mutual TLS, the lease as a Bedrock API key from the environment, a binary event stream."""

import asyncio
import json
import ssl
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import EventStreamError
from tests.fakes.certificates import Authority
from tests.fakes.egress import KEY, TOKEN, FakePeers, running

from leasehold_broker.domain.call import CallEnd
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.providers.bedrock import Bedrock
from leasehold_broker.providers.event_stream import MEDIA_TYPE, encode
from leasehold_broker.wiring.public_sockets import tls_acceptor

MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
ASK = {
    "modelId": MODEL,
    "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
    "inferenceConfig": {"maxTokens": 64},
}


def message(kind: str, **payload: object) -> bytes:
    """One message of the stream, in a chunk of its own."""
    raw = encode({":message-type": "event", ":event-type": kind}, json.dumps(payload).encode())
    return b"%x\r\n%b\r\n" % (len(raw), raw)


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[ssl.SSLContext, Path, tuple[str, str]]:
    """The egress's context, the authority's file, and the agent's certificate and key."""
    authority = Authority()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*authority.issue().files(tmp_path, "egress"))
    return context, ca, tuple(str(path) for path in authority.issue().files(tmp_path, "agent"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the lease, where boto3 looks for a Bedrock API key."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", TOKEN)


async def test_boto3_streams_and_sees_the_cut(certificates, environment) -> None:
    """Messages come one by one; upstream sees the key and not the lease; a revocation is the SDK's own error."""
    context, ca, agent = certificates
    async with running(providers={"bedrock": Bedrock()}) as world:
        port = await world.server.listen_tcp(
            "127.0.0.1", 0, tls=tls_acceptor(SimpleNamespace(context=lambda: context), FakePeers())
        )
        never = asyncio.Event()
        whole = [
            message("messageStart", role="assistant"),
            message("contentBlockDelta", contentBlockIndex=0, delta={"text": "one"}),
            message("messageStop", stopReason="end_turn"),
            message(
                "metadata", usage={"inputTokens": 11, "outputTokens": 5, "totalTokens": 16}, metrics={"latencyMs": 1}
            ),
            b"0\r\n\r\n",
        ]
        answers = [whole, whole[:2]]

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = f"HTTP/1.1 200 OK\r\ncontent-type: {MEDIA_TYPE}\r\ntransfer-encoding: chunked\r\n\r\n"
            pieces = answers.pop(0)
            writer.write(head.encode() + b"".join(pieces))
            if len(pieces) < len(whole):
                await never.wait()

        world.origin.answer = answer
        loop = asyncio.get_running_loop()

        def call(*, cut: bool) -> list[str]:
            settings = Config(client_cert=agent, retries={"total_max_attempts": 1}, read_timeout=60)
            client = boto3.session.Session().client(
                "bedrock-runtime",
                region_name="eu-central-1",
                endpoint_url=f"https://localhost:{port}/bedrock",
                verify=str(ca),
                config=settings,
            )
            kinds = []
            with closing(client), closing(client.converse_stream(**ASK)["stream"]) as stream:
                for event in stream:
                    kinds += event
                    if cut and "contentBlockDelta" in event:
                        refusal = Refusal(Reason.LEASE_REVOKED, "revoked")
                        loop.call_soon_threadsafe(world.calls.cuts["call-1"], CallEnd.CUT_BY_REVOCATION, refusal)
            return kinds

        kinds = await asyncio.to_thread(call, cut=False)
        assert kinds == ["messageStart", "contentBlockDelta", "messageStop", "metadata"]
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.usage, outcome.usage_final) == (CallEnd.FINISHED, Usage(11, output_tokens=5), True)
        head = world.origin.heads[0]
        assert head.startswith(f"POST /model/{MODEL.replace(':', '%3A')}/converse-stream HTTP/1.1\r\n".encode())
        assert b"authorization: Bearer " + KEY.encode() in head
        assert TOKEN.encode() not in head
        assert json.loads(world.origin.requests[0]) == {name: value for name, value in ASK.items() if name != "modelId"}
        with pytest.raises(EventStreamError, match="LEASE_REVOKED"):
            await asyncio.to_thread(call, cut=True)
        outcome = await world.calls.outcome("call-1")
        assert (outcome.end, outcome.usage) == (CallEnd.CUT_BY_REVOCATION, None)
        never.set()
