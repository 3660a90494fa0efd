"""The official SDKs, given nothing but a base URL and a key, against each provider module."""

import json
import re
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types
from tests.fakes.vendor_server import VendorServer, serving

from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.providers.anthropic import Anthropic
from leasehold_broker.providers.gemini import Gemini
from leasehold_broker.providers.openai import OpenAI

VECTORS = Path(__file__).parents[1] / "vectors"
TOKEN = "lht_" + "a" * 40
BUDGET = Refusal(Reason.BUDGET_EXHAUSTED, "the lease has 12 micro-USD left; ask for more")
REVOKED = Refusal(Reason.LEASE_REVOKED, "the lease was revoked; acquire a new one")


def canned(server: VendorServer, vector: str) -> dict[str, Any]:
    """Make the server answer with a golden transcript."""
    content = json.loads((VECTORS / server.provider.name / f"{vector}.json").read_text())
    server.answer = "".join(content["answer"]).encode()
    server.content_type = content["content_type"]
    return content


def test_anthropic_sdk() -> None:
    """Plain, streamed, beta, counting and listing calls of the SDK pass; a stream gives its events and its usage."""
    with serving(VendorServer(Anthropic(), limit=77)) as server:
        client = anthropic.Anthropic(base_url=server.base_url, api_key=TOKEN, max_retries=0)
        canned(server, "json_cache")
        asked = {"model": "claude-sonnet-5", "max_tokens": 600, "messages": [{"role": "user", "content": "Hi"}]}
        message = client.messages.create(**asked)
        assert message.usage.output_tokens == 503
        assert server.last.credential == TOKEN
        assert server.last.upstream is not None
        assert server.last.upstream.path == "/v1/messages"
        assert dict(server.last.upstream.headers)["anthropic-version"] == "2026-10-21"
        assert server.last.sent == {**asked, "service_tier": "standard_only"}
        assert server.last.meter is not None
        assert server.last.meter.usage is not None

        canned(server, "stream_thinking_tools")
        with client.messages.stream(**asked) as stream:
            assert stream.get_final_message().usage.output_tokens == 510
        assert server.last.meter is not None
        assert server.last.meter.usage == Usage(2679, output_tokens=510, reasoning_tokens=300, service_tier="standard")

        canned(server, "json_cache")
        client.beta.messages.create(**asked, betas=["interleaved-thinking-2025-05-14"])
        assert server.last.upstream is not None
        assert dict(server.last.upstream.headers)["anthropic-beta"] == "interleaved-thinking-2025-05-14"
        server.answer = b'{"input_tokens": 9}'
        counted = client.messages.count_tokens(model="claude-sonnet-5", messages=[{"role": "user", "content": "Hi"}])
        assert counted.input_tokens == 9
        assert server.last.plan is not None
        assert not server.last.plan.metered
        server.answer = b'{"data": [], "has_more": false, "first_id": null, "last_id": null}'
        assert list(client.models.list(limit=5)) == []
        client.close()


def test_anthropic_sdk_raises_its_own_errors() -> None:
    """Refusals arrive as the SDK's exceptions and name who refused and why; so does a cut stream."""
    with serving(VendorServer(Anthropic())) as server:
        client = anthropic.Anthropic(base_url=server.base_url, api_key=TOKEN, max_retries=0)
        asked = {"model": "claude-sonnet-5", "max_tokens": 600, "messages": [{"role": "user", "content": "Hi"}]}
        with pytest.raises(anthropic.PermissionDeniedError, match="leasehold refused"):
            client.messages.create(**asked, extra_body={"mcp_servers": []})
        server.refuse = BUDGET
        with pytest.raises(anthropic.APIStatusError, match="BUDGET_EXHAUSTED"):
            client.messages.create(**asked)
        server.refuse = None
        server.cut = REVOKED
        canned(server, "stream_error")
        server.answer = server.answer.partition(b"event: error")[0]
        with client.messages.create(**asked, stream=True) as events, pytest.raises(anthropic.APIError, match="REVOKED"):
            list(events)
        client.close()


def test_openai_sdk() -> None:
    """Chat, responses, embeddings and models pass; the usage chunk is forced and hidden; limits are placed."""
    with serving(VendorServer(OpenAI(), limit=77)) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key=TOKEN, max_retries=0)
        canned(server, "chat_json_cached")
        messages: list[Any] = [{"role": "user", "content": "Hi"}]
        answer = client.chat.completions.create(model="gpt-5.2", messages=messages)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 200
        assert server.last.credential == TOKEN
        assert server.last.sent == {
            "messages": messages,
            "model": "gpt-5.2",
            "service_tier": "default",
            "max_completion_tokens": 77,
        }
        canned(server, "chat_stream_hidden")
        chunks = list(client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True))
        assert all(chunk.choices for chunk in chunks)
        assert server.last.sent["stream_options"] == {"include_usage": True}
        assert server.last.meter is not None
        assert server.last.meter.usage == Usage(21, output_tokens=9, service_tier="default")
        with client.chat.completions.stream(
            model="gpt-4o-mini", messages=messages, stream_options={"include_usage": True}
        ) as stream:
            final = stream.get_final_completion()
        assert final.usage is not None
        assert final.usage.prompt_tokens == 21
        canned(server, "responses_stream")
        events = list(client.responses.create(model="gpt-5", input="Hi", stream=True))
        assert events[-1].type == "response.completed"
        assert server.last.sent["max_output_tokens"] == 77
        canned(server, "embeddings")
        vectors = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
        assert vectors.usage.prompt_tokens == 8
        assert server.last.sent["input"] == ["a", "b"]
        server.answer = b'{"object": "list", "data": []}'
        assert list(client.models.list()) == []
        client.close()


def test_openai_sdk_raises_its_own_errors() -> None:
    """Refusals arrive as the SDK's exceptions and name who refused and why; so does a cut stream, in both dialects."""
    with serving(VendorServer(OpenAI())) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key=TOKEN, max_retries=0)
        messages: list[Any] = [{"role": "user", "content": "Hi"}]
        with pytest.raises(openai.PermissionDeniedError, match="previous_response_id"):
            client.responses.create(model="gpt-5", input="Hi", previous_response_id="resp_1")
        server.refuse = Refusal(Reason.RATE_LIMITED, "too many; wait", retry_after_seconds=1.0)
        with pytest.raises(openai.RateLimitError, match="leasehold refused"):
            client.chat.completions.create(model="gpt-5", messages=messages)
        server.refuse = None
        server.cut = REVOKED
        canned(server, "chat_stream_cut")
        with pytest.raises(openai.APIError, match="LEASE_REVOKED"):
            list(client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True))
        canned(server, "responses_stream")
        server.answer = server.answer.partition(b"event: response.completed")[0]
        with pytest.raises(openai.APIError, match="LEASE_REVOKED"):
            list(client.responses.create(model="gpt-5", input="Hi", stream=True))
        with_project = openai.OpenAI(base_url=server.base_url, api_key=TOKEN, max_retries=0, project="p")
        with pytest.raises(openai.PermissionDeniedError, match="openai-project"):
            with_project.models.list()
        with_project.close()
        client.close()


@pytest.mark.parametrize("version", ["v1", "v1beta", None])
def test_gemini_sdk(version: str | None) -> None:
    """Plain, streamed, counting, embedding and listing calls of the SDK pass, at every version of the API."""
    with serving(VendorServer(Gemini(), limit=77)) as server:
        options = genai_types.HttpOptions(base_url=server.base_url, api_version=version)
        client = genai.Client(api_key=TOKEN, http_options=options)
        canned(server, "json_thoughts_cached")
        config = genai_types.GenerateContentConfig(
            system_instruction="Be brief", thinking_config=genai_types.ThinkingConfig(thinking_budget=64)
        )
        answer = client.models.generate_content(model="gemini-2.5-flash", contents="Hi", config=config)
        assert answer.text == "Hi"
        assert server.last.credential == TOKEN
        assert server.last.sent["generationConfig"]["maxOutputTokens"] == 77
        assert server.last.sent["generationConfig"]["thinkingConfig"]
        canned(server, "stream_long")
        parts = [chunk.text for chunk in client.models.generate_content_stream(model="gemini-2.5-pro", contents="Hi")]
        assert parts == ["a", "b", "c"]
        assert server.last.meter is not None
        assert server.last.meter.usage == Usage(250000, output_tokens=1000, reasoning_tokens=600)
        assert server.last.upstream is not None
        assert re.fullmatch(
            r"/v1(beta)?/models/gemini-2\.5-pro:streamGenerateContent\?alt=sse", server.last.upstream.path
        )
        server.content_type = "application/json"
        server.answer = b'{"totalTokens": 3}'
        assert client.models.count_tokens(model="gemini-2.5-flash", contents="Hi").total_tokens == 3
        server.answer = b'{"embeddings": [{"values": [0.1]}, {"values": [0.2]}]}'
        embedded = client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"])
        assert embedded.embeddings is not None
        assert len(embedded.embeddings) == 2
        server.answer = b'{"models": []}'
        assert list(client.models.list()) == []
        client.close()


def test_gemini_sdk_raises_its_own_errors() -> None:
    """Refusals arrive as the SDK's exceptions and name who refused and why; so does a cut stream."""
    with serving(VendorServer(Gemini())) as server:
        client = genai.Client(api_key=TOKEN, http_options=genai_types.HttpOptions(base_url=server.base_url))
        search = genai_types.GenerateContentConfig(tools=[genai_types.Tool(google_maps=genai_types.GoogleMaps())])
        with pytest.raises(genai_errors.ClientError, match="googleMaps"):
            client.models.generate_content(model="gemini-2.5-flash", contents="Hi", config=search)
        server.cut = REVOKED
        canned(server, "stream_cut")
        with pytest.raises(genai_errors.APIError, match="LEASE_REVOKED"):
            list(client.models.generate_content_stream(model="gemini-2.5-pro", contents="Hi"))
        client.close()
