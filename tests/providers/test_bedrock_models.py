"""InvokeModel of Nova and Llama, and CountTokens: bounded as Converse's texts are, and understood by boto3."""

import json
from contextlib import closing
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.eventstream import EventStreamBuffer
from tests.fakes.vendor_server import VendorServer, serving
from tests.providers.test_transcripts import VECTORS, events_of

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.providers.bedrock import Bedrock

PROVIDER = Bedrock()
NOVA, LLAMA = "us.amazon.nova-lite-v1:0", "us.meta.llama3-3-70b-instruct-v1:0"
MISTRAL = "mistral.mistral-large-2402-v1:0"
TURN = [{"role": "user", "content": [{"text": "Hi"}]}]
PICTURE = [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": "AAAA"}}}]}]


def plan(model: str, verb: str = "invoke", **body: Any) -> CallPlan:
    """The plan of this body."""
    return PROVIDER.plan(PROVIDER.route("POST", f"/model/{model}/{verb}", ""), {}, body, 0)


def sent(model: str, limit: int | None, **body: Any) -> Any:
    """What goes upstream for it."""
    route = PROVIDER.route("POST", f"/model/{model}/invoke", "")
    return json.loads(PROVIDER.request(route, {}, body, limit).body)


def test_the_output_limit_is_read_and_placed_where_each_model_has_it() -> None:
    """Nova's is in its config, Llama's beside the prompt; what else is said stays."""
    settings = {"maxTokens": 64, "topK": 5}
    nova = plan(NOVA, messages=TURN, inferenceConfig=settings, schemaVersion="messages-v1")
    llama = plan(LLAMA, "invoke-with-response-stream", prompt="Hi", max_gen_len=64)
    assert (nova.output_tokens_stated, nova.stream, nova.metered) == (64, False, True)
    assert (llama.output_tokens_stated, llama.stream, llama.metered) == (64, True, True)
    assert plan(LLAMA, prompt="Hi").output_tokens_stated is None
    assert sent(NOVA, 32, messages=TURN, inferenceConfig=settings)["inferenceConfig"] == {"maxTokens": 32, "topK": 5}
    assert sent(NOVA, 32, messages=TURN)["inferenceConfig"] == {"maxTokens": 32}
    assert sent(LLAMA, 32, prompt="Hi", top_p=0.5) == {"prompt": "Hi", "top_p": 0.5, "max_gen_len": 32}
    assert sent(LLAMA, None, prompt="Hi") == {"prompt": "Hi"}


def test_a_longer_text_has_a_larger_bound() -> None:
    """Byte for byte, in either body."""
    for model, name in ((NOVA, "messages"), (LLAMA, "prompt")):
        short, long = (
            plan(model, **{name: text if name == "prompt" else [{"role": "user", "content": [{"text": text}]}]})
            for text in ("a", "a" * 1001)
        )
        assert long.input_tokens_bound == short.input_tokens_bound + 1000


@pytest.mark.parametrize(
    ("model", "body", "reason", "said"),
    [
        (MISTRAL, {"prompt": "Hi"}, Reason.COST_UNBOUNDED, "use Converse"),
        (NOVA, {"messages": PICTURE}, Reason.COST_UNBOUNDED, "no bound is known"),
        (NOVA, {"messages": TURN, "inferenceConfig": {"max_new_tokens": 5}}, Reason.COST_UNBOUNDED, "maxTokens"),
        (NOVA, {"messages": TURN, "guardrailConfig": {}}, Reason.BODY_INVALID, "guardrailConfig"),
        (NOVA, {"messages": TURN, "taskType": "TEXT_IMAGE"}, Reason.BODY_INVALID, "taskType"),
        (LLAMA, {"prompt": "Hi", "images": ["AAAA"]}, Reason.COST_UNBOUNDED, "images"),
        (LLAMA, {"prompt": ["Hi"]}, Reason.BODY_INVALID, "prompt"),
        (LLAMA, {"prompt": "Hi", "max_gen_len": 0}, Reason.BODY_INVALID, "max_gen_len"),
    ],
)
def test_what_is_not_known_is_refused(model: str, body: dict[str, Any], reason: Reason, said: str) -> None:
    """Bodies, members and pictures without a bound: refused, and told what to do."""
    with pytest.raises(Refusal, match=said) as caught:
        plan(model, **body)
    assert caught.value.reason is reason


def test_counting_is_free_and_checked() -> None:
    """No money is held for it; a body that is hidden in base64, or a file of somebody's, is not sent on."""
    counted = plan(NOVA, "count-tokens", input={"converse": {"messages": TURN}})
    assert (counted.metered, counted.operation) == (False, "count_tokens")
    with pytest.raises(Refusal, match="as converse"):
        plan(NOVA, "count-tokens", input={"invokeModel": {"body": "e30="}})
    stored = {"document": {"name": "a", "format": "txt", "source": {"s3Location": {"uri": "s3://b/k"}}}}
    with pytest.raises(Refusal, match="s3Location"):
        plan(NOVA, "count-tokens", input={"converse": {"messages": [{"role": "user", "content": [stored]}]}})


def test_boto3_invokes_and_counts() -> None:
    """The official SDK: a whole answer, a stream, a count; what they report is metered, and counting is not."""
    with serving(VendorServer(PROVIDER)) as server:
        client = boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=server.base_url,
            config=Config(signature_version=UNSIGNED, retries={"max_attempts": 0}),
        )
        bearer = {"Authorization": f"Bearer {'lht_' + 'a' * 40}"}
        client.meta.events.register("before-send.bedrock-runtime", lambda request, **_: request.headers.update(bearer))
        vector = json.loads((VECTORS / "bedrock" / "llama_json.json").read_text())
        server.answer = "".join(vector["answer"]).encode()
        answer = client.invoke_model(modelId=LLAMA, body=json.dumps({"prompt": "Hi", "max_gen_len": 64}))
        assert json.loads(answer["body"].read())["generation_token_count"] == 60
        assert server.last.meter is not None
        assert server.last.meter.usage == Usage(25, output_tokens=60)

        vector = json.loads((VECTORS / "bedrock" / "nova_stream.json").read_text())
        server.answer, server.content_type = b"".join(events_of(vector)), vector["content_type"]
        streamed = client.invoke_model_with_response_stream(modelId=NOVA, body=json.dumps({"messages": TURN}))
        with closing(streamed["body"]) as events:
            assert len(list(events)) == 4
        assert server.last.meter is not None
        assert server.last.meter.usage == Usage(1000, output_tokens=200)
        buffer = EventStreamBuffer()
        buffer.add_data(server.answer)
        assert len(list(buffer)) == 4

        server.answer, server.content_type = b'{"inputTokens": 7}', "application/json"
        assert client.count_tokens(modelId=NOVA, input={"converse": {"messages": TURN}})["inputTokens"] == 7
        assert server.last.meter is not None
        assert server.last.meter.usage is None
        client.close()
