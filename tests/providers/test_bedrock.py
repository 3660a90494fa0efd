"""Bedrock: what is served, what is refused, what a call is bounded by, and that boto3 understands all of it."""

import gzip
import json
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import botocore
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.vendor_server import VendorServer, serving

from leasehold.http import bedrock_bearer, bedrock_kwargs
from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.call import CallPlan, worst_case
from leasehold_broker.domain.price import Usage, cost_micro_usd
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.providers import bedrock_body, load_price_book
from leasehold_broker.providers.bedrock import Bedrock
from leasehold_broker.providers.event_stream import MEDIA_TYPE, encode

PROVIDER = Bedrock()
BOOK = load_price_book()
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "us.amazon.nova-lite-v1:0"
ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
    "inferenceConfig": {"maxTokens": 64},
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = {"image": {"format": "png", "source": {"bytes": PIXEL}}}


def plan(verb: str = "converse", model: str = CLAUDE, body: dict[str, Any] | None = None, **members: Any) -> CallPlan:
    """The plan of a Converse request with these members."""
    route = PROVIDER.route("POST", f"/model/{model}/{verb}", "")
    return PROVIDER.plan(route, {}, body or {**ASK, **members}, 0)


def sent(verb: str, body: dict[str, Any], limit: int | None = None, model: str = CLAUDE) -> dict[str, Any]:
    """What goes to the vendor."""
    route = PROVIDER.route("POST", f"/model/{model}/{verb}", "")
    return json.loads(PROVIDER.request(route, {}, body, limit).body)


@pytest.mark.parametrize(
    ("path", "operation", "upstream"),
    [
        (f"/model/{NOVA}/converse", "converse", "/model/us.amazon.nova-lite-v1%3A0/converse"),
        ("/model/us.amazon.nova-lite-v1%3A0/converse", "converse", "/model/us.amazon.nova-lite-v1%3A0/converse"),
        ("/model/us.amazon.nova-lite-v1%3a0/converse-stream", "converse_stream", None),
        (f"/model/{CLAUDE}/invoke", "invoke_model", None),
        (f"/model/{CLAUDE}/invoke-with-response-stream", "invoke_model_stream", None),
    ],
)
def test_routes(path: str, operation: str, upstream: str | None) -> None:
    """The four operations, with the colon as it is or encoded; the path upstream is ours."""
    route = PROVIDER.route("POST", path, "")
    assert (route.operation, route.path_model in {NOVA, CLAUDE}) == (operation, True)
    assert upstream is None or route.upstream_path == upstream


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", f"/model/{NOVA}/converse", ""),
        ("POST", f"/model/{NOVA}/converse", "x=1"),
        ("POST", f"/model/{NOVA}/async-invoke", ""),
        ("POST", f"/model/{NOVA}/count_tokens", ""),
        ("POST", "/model/../converse", ""),
        ("POST", "/model/a%2Fb/converse", ""),
        ("POST", "/model/a%2eb/converse", ""),
        ("POST", "/model//converse", ""),
        ("POST", f"/model/{NOVA}/converse/", ""),
        ("POST", f"/model/{NOVA}/converse%2e", ""),
        ("POST", "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fx/converse", ""),
        ("POST", "/async-invoke", ""),
        ("POST", "/guardrail/x/version/1/apply", ""),
        ("POST", f"/model/{'m' * 200}/converse", ""),
    ],
)
def test_everything_else_is_not_served(method: str, path: str, query: str) -> None:
    """No other method, query, operation, encoding or ARN."""
    with pytest.raises(Refusal) as caught:
        PROVIDER.route(method, path, query)
    assert caught.value.reason is Reason.ROUTE_NOT_ALLOWED


def test_the_fields_are_botocores() -> None:
    """Every member that the SDK knows is on one of the lists, and no other is."""
    path = next(Path(botocore.__file__).parent.glob("data/bedrock-runtime/*/service-2.json.gz"))
    shapes = json.loads(gzip.decompress(path.read_bytes()))["shapes"]
    for shape in ("ConverseRequest", "ConverseStreamRequest"):
        known = {name for name, member in shapes[shape]["members"].items() if member.get("location") != "uri"}
        assert known == bedrock_body.FIELDS | set(bedrock_body.REFUSED)
    blocks = set(shapes["ContentBlock"]["members"])
    for block in blocks - {"text", "image", "document", "toolUse", "toolResult", "cachePoint", "reasoningContent"}:
        with pytest.raises(Refusal):
            plan(messages=[{"role": "user", "content": [{block: {}}]}])


UNBOUNDED = [
    {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}},
    {"promptVariables": {"x": {"text": "y"}}},
    {"projectIdentifier": "p"},
    {"serviceTier": {"type": "priority"}},
    {"serviceTier": {"type": "reserved"}},
    {"performanceConfig": {"latency": "optimized"}},
    {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}},
    {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 64}}},
    {"system": [{"guardContent": {"text": {"text": "x"}}}]},
    {"system": [{"cachePoint": {"type": "default", "ttl": "1d"}}]},
    *(
        {"messages": [{"role": "user", "content": [block]}]}
        for block in (
            {"video": {"format": "mp4", "source": {"bytes": "AAAA"}}},
            {"audio": {"format": "mp3", "source": {"bytes": "AAAA"}}},
            {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/k"}}}},
            {"document": {"format": "pdf", "name": "d", "source": {"bytes": "AAAA"}}},
            {"document": {"name": "d", "source": {"text": "x"}, "citations": {"enabled": True}}},
            {"searchResult": {"source": "s", "title": "t", "content": []}},
            {"toolResult": {"toolUseId": "t", "content": [{"video": {}}]}},
        )
    ),
]
INVALID = [
    {"unknown": 1},
    {"inferenceConfig": {"maxTokens": 0}},
    {"inferenceConfig": {"maxTokens": True}},
    {"inferenceConfig": {"top_k": 1}},
    {"additionalModelRequestFields": {"max_tokens": 10**6}},
    {"messages": "x"},
    {"messages": [{"role": "user", "content": "x"}]},
    {"messages": [{"role": "user", "content": [{"text": 1}]}]},
    {"messages": [{"role": "user", "content": [{"mystery": {}}]}]},
    {"messages": [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": "!"}}}]}]},
    {"messages": [{"role": "user", "content": [{"toolResult": {"content": [{"toolResult": {"content": []}}]}}]}]},
    {"system": ["x"]},
]


@pytest.mark.parametrize("members", UNBOUNDED, ids=str)
def test_what_has_no_bound_or_price_is_refused(members: dict[str, Any]) -> None:
    """COST_UNBOUNDED, naming the member, for every way to make a call dearer than its text and its limit."""
    with pytest.raises(Refusal) as caught:
        plan(**members)
    assert caught.value.reason is Reason.COST_UNBOUNDED


@pytest.mark.parametrize("members", INVALID, ids=str)
def test_what_is_wrong_is_refused(members: dict[str, Any]) -> None:
    """BODY_INVALID for what the API does not know."""
    with pytest.raises(Refusal) as caught:
        plan(**members)
    assert caught.value.reason is Reason.BODY_INVALID


def test_images_are_bounded_for_claude_only() -> None:
    """One picture costs its maximum, wherever it stands; what another model makes of one is not known."""
    text = plan().input_tokens_bound
    inside = {"toolResult": {"toolUseId": "t", "content": [IMAGE]}}
    for block in (IMAGE, inside):
        bound = plan(messages=[{"role": "user", "content": [{"text": "Hi"}, block]}]).input_tokens_bound
        assert 8_704 < bound - text < 9_200
        with pytest.raises(Refusal, match="Claude"):
            plan(model=NOVA, messages=[{"role": "user", "content": [block]}])


def test_plans_and_what_is_sent() -> None:
    """Limits are read and placed where the operation has them; everything else goes as it came."""
    assert (plan().output_tokens_stated, plan().stream, plan("converse-stream").stream) == (64, False, True)
    assert plan(inferenceConfig={}).output_tokens_stated is None
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 2000}}
    assert plan(inferenceConfig={}, additionalModelRequestFields=thinking).output_tokens_floor == 2016
    assert not plan().cache_writes
    assert plan(system=[{"text": "x"}, {"cachePoint": {"type": "default"}}]).cache_writes
    assert sent("converse", ASK) == ASK
    assert sent("converse", {**ASK, "inferenceConfig": {"topP": 1}}, 9)["inferenceConfig"] == {
        "topP": 1,
        "maxTokens": 9,
    }
    assert sent("converse", {"messages": []}, 9)["inferenceConfig"] == {"maxTokens": 9}
    body = {"max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
    version = {"anthropic_version": "bedrock-2023-05-31"}
    assert plan("invoke", body=body).output_tokens_stated == 5
    assert plan("invoke-with-response-stream", body={**body, "stream": True}).stream
    assert sent("invoke", {**body, "stream": True}) == {**body, **version}
    assert sent("invoke", {"messages": []}, 7) == {"messages": [], "max_tokens": 7, **version}
    for wrong, reason in (
        ({"model": "m"}, Reason.COST_UNBOUNDED),
        ({"service_tier": "auto"}, Reason.COST_UNBOUNDED),
        ({"anthropic_version": "vertex-2023-10-16"}, Reason.BODY_INVALID),
        ({"anthropic_beta": ["context-1m-2025-08-07"]}, Reason.COST_UNBOUNDED),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, Reason.COST_UNBOUNDED),
        ({"prompt": "Human:"}, Reason.BODY_INVALID),
    ):
        with pytest.raises(Refusal) as caught:
            plan("invoke", body={**body, **wrong})
        assert caught.value.reason is reason, wrong
    with pytest.raises(Refusal, match="Converse"):
        plan("invoke", "mistral.mistral-large-2402-v1:0", body={"prompt": "x"})


@pytest.mark.parametrize(
    "name",
    [
        "x-amzn-bedrock-service-tier",
        "x-amzn-bedrock-performanceconfig-latency",
        "x-amzn-bedrock-guardrailidentifier",
        "x-amz-security-token",
        "x-unknown",
    ],
)
def test_headers_that_choose_a_price_or_a_payer_are_refused(name: str) -> None:
    """By name, before anything is held."""
    route = PROVIDER.route("POST", f"/model/{NOVA}/converse", "")
    with pytest.raises(Refusal) as caught:
        PROVIDER.plan(route, {name: "x"}, ASK, 0)
    assert caught.value.reason is Reason.HEADER_NOT_ALLOWED


def test_away_from_the_listed_regions_only_uniform_prices_hold() -> None:
    """Anthropic's models and global profiles cost the same everywhere; what Nova costs in Frankfurt is not known."""
    away = Bedrock("eu-central-1", "own-bedrock-eu")
    assert away.default_origin == "https://bedrock-runtime.eu-central-1.amazonaws.com"
    for model, priced in (
        ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("amazon.nova-lite-v1:0", False),
    ):
        route = away.route("POST", f"/model/{model}/converse", "")
        wanted = away.plan(route, {}, ASK, 0)
        assert (wanted.provider, wanted.regions) == ("own-bedrock-eu", ("elsewhere",))
        price = BOOK.price("bedrock", model)
        if priced:
            here = worst_case(plan(model=model), price, 0, NO_CAPS).amounts
            assert worst_case(wanted, price, 0, NO_CAPS).amounts == here
        else:
            with pytest.raises(Refusal) as caught:
                worst_case(wanted, price, 0, NO_CAPS)
            assert caught.value.reason is Reason.PRICE_UNKNOWN
        meter = away.meter(route, wanted, ASK, "application/json")
        meter.feed(b'{"usage": {"inputTokens": 1, "outputTokens": 2}}')
        meter.finish()
        assert meter.usage == Usage(1, output_tokens=2, region="elsewhere")
    with pytest.raises(ValueError, match="no region"):
        Bedrock("eu-central-1.evil.example")


def test_signed_requests_are_told_what_to_do() -> None:
    """A signature covers a key that an agent must not have; the key we send is a bearer."""
    with pytest.raises(Refusal, match="Bearer"):
        PROVIDER.credential({"authorization": "AWS4-HMAC-SHA256 Credential=x"}, "")
    assert PROVIDER.credential({"authorization": "Bearer lease"}, "") == "lease"
    assert PROVIDER.key_header(Secret(b"k")) == ("authorization", b"Bearer k")


texts = st.text(max_size=60)
blocks = st.one_of(
    texts.map(lambda text: {"text": text}),
    st.just(IMAGE),
    texts.map(lambda text: {"toolResult": {"toolUseId": "t", "content": [{"text": text}, {"json": {"a": text}}]}}),
    texts.map(lambda text: {"document": {"name": "d", "source": {"text": text}}}),
    st.just({"cachePoint": {"type": "default", "ttl": "1h"}}),
)
messages = st.lists(
    st.lists(blocks, max_size=4).map(lambda content: {"role": "user", "content": content}), min_size=1, max_size=4
)


def fewer(value: Any) -> int:
    """Fewest bytes that any tokenizer must see of a request's texts, and the pictures' least."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, dict):
        return sum(fewer(each) for name, each in value.items() if name != "bytes")
    return sum(map(fewer, value)) if isinstance(value, list) else 0


@given(messages, st.integers(1, 500), st.integers(1, 500), st.data())
def test_b12_no_answer_within_the_request_costs_more_than_its_hold(asked, limit, spare, data) -> None:
    """Whatever of its bound the input takes, fresh, read or written, and whatever of its limit the answer."""
    for model in (CLAUDE, CLAUDE.replace("us.", "global.")):
        price = BOOK.price("bedrock", model)
        assert price is not None
        wanted = plan(model=model, messages=asked, inferenceConfig={"maxTokens": limit})
        held = worst_case(wanted, price, 0, NO_CAPS).amounts
        texts_bytes = fewer(asked)
        assert wanted.input_tokens_bound >= texts_bytes
        left = wanted.input_tokens_bound
        parts = []
        for _ in range(3):
            parts.append(data.draw(st.integers(0, left)))
            left -= parts[-1]
        fresh, read, written = parts
        writes = (written, 0) if not bedrock_body.writes_1h({"messages": asked}) else (0, written)
        usage = Usage(fresh, read, *(writes if wanted.cache_writes else (0, 0)), data.draw(st.integers(0, limit)))
        assert cost_micro_usd(usage, price) <= held.cost_micro_usd
        assert usage.all_input_tokens <= held.input_tokens


@given(messages, blocks, st.integers(1, 500), st.integers(1, 500))
def test_b11_more_of_anything_never_holds_less(asked, block, limit, more) -> None:
    """One block more, or a larger limit: the hold is at least as large."""
    price = BOOK.price("bedrock", CLAUDE)
    small = worst_case(plan(messages=asked, inferenceConfig={"maxTokens": limit}), price, 0, NO_CAPS).amounts
    longer = [*asked[:-1], {**asked[-1], "content": [*asked[-1]["content"], block]}]
    for larger in (
        plan(messages=longer, inferenceConfig={"maxTokens": limit}),
        plan(messages=asked, inferenceConfig={"maxTokens": limit + more}),
    ):
        assert small.fits(worst_case(larger, price, 0, NO_CAPS).amounts)


def client(server: VendorServer) -> Any:
    """A boto3 client that is pointed at us and knows nothing but the lease."""
    lease = SimpleNamespace(
        token=SimpleNamespace(reveal=lambda: "the-lease"),
        endpoint=lambda provider: SimpleNamespace(base_url=server.base_url) if provider == "bedrock" else None,
    )
    settings = Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}, read_timeout=30)
    found = boto3.session.Session().client(
        "bedrock-runtime", region_name="us-east-1", config=settings, **bedrock_kwargs(lease)
    )
    found.meta.events.register("before-send.bedrock-runtime", bedrock_bearer(lease))
    return found


def vector(name: str) -> tuple[dict[str, Any], bytes]:
    """A golden transcript, and its bytes."""
    found = json.loads((Path(__file__).parents[1] / "vectors" / "bedrock" / f"{name}.json").read_text())
    if "frames" in found:
        frames = (encode(frame["headers"], json.dumps(frame["payload"]).encode()) for frame in found["frames"])
        return found, b"".join(frames)
    return found, "".join(found["answer"]).encode()


def test_boto3_converses() -> None:
    """Whole and streamed: boto3 sends what we take, and reads what we relay."""
    expected, answer = vector("converse_json_cache")
    with serving(VendorServer(PROVIDER, answer)) as server, closing(client(server)) as bedrock:
        asked = {
            "modelId": CLAUDE,
            "messages": [{"role": "user", "content": [{"text": "Hi"}, {"cachePoint": {"type": "default"}}]}],
            "inferenceConfig": {"maxTokens": 64, "temperature": 0.5},
            "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}]},
        }
        found = bedrock.converse(**asked)
        assert found["usage"]["cacheReadInputTokens"] == 10_000
        exchange = server.last
        assert (exchange.credential, exchange.plan.model) == ("the-lease", CLAUDE)
        assert exchange.sent == {name: value for name, value in asked.items() if name != "modelId"}
        assert exchange.meter.usage == Usage(**expected["usage"])
        expected, server.answer = vector("converse_stream_thinking_tools_cache")
        server.content_type = MEDIA_TYPE
        events = list(bedrock.converse_stream(**asked)["stream"])
        assert events[-1]["metadata"]["usage"]["outputTokens"] == 87
        assert len(events) == len(expected["frames"])
        assert server.last.meter.usage == Usage(**expected["usage"])
        assert server.last.meter.final


def test_boto3_invokes() -> None:
    """A body of Claude's own."""
    _, answer = vector("invoke_json_cache")
    with serving(VendorServer(PROVIDER, answer)) as server:
        body = {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "x"}],
        }
        with closing(client(server)) as bedrock:
            found = bedrock.invoke_model(modelId=CLAUDE, body=json.dumps(body), contentType="application/json")
        assert json.loads(found["body"].read())["usage"]["output_tokens"] == 30
        assert server.last.sent == body


def test_boto3_raises_its_own_errors() -> None:
    """A refusal is the SDK's exception of that kind; a cut in mid-stream is one too, and says the reason."""
    with (
        serving(VendorServer(PROVIDER, refuse=Refusal(Reason.BUDGET_EXHAUSTED, "spent"))) as server,
        closing(client(server)) as bedrock,
    ):
        with pytest.raises(ClientError, match="BUDGET_EXHAUSTED") as caught:
            bedrock.converse(modelId=CLAUDE, **ASK)
        assert caught.value.response["Error"]["Code"] == "ServiceQuotaExceededException"
        server.refuse = Refusal(Reason.RATE_LIMITED, "slow down")
        with pytest.raises(bedrock.exceptions.ThrottlingException, match="RATE_LIMITED"):
            bedrock.converse(modelId=CLAUDE, **ASK)
        server.refuse = Refusal(Reason.MODEL_NOT_ALLOWED, "no")
        with pytest.raises(bedrock.exceptions.AccessDeniedException, match="MODEL_NOT_ALLOWED"):
            bedrock.converse(modelId=CLAUDE, **ASK)
        server.refuse = None
        server.cut = Refusal(Reason.LEASE_REVOKED, "revoked")
        server.content_type = MEDIA_TYPE
        _, server.answer = vector("converse_stream_cut")
        with closing(bedrock.converse_stream(modelId=CLAUDE, **ASK)["stream"]) as stream:
            events = iter(stream)
            assert "messageStart" in next(events)
            with pytest.raises(EventStreamError, match="LEASE_REVOKED"):
                list(events)
