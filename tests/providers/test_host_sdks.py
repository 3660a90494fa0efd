"""The SDKs that people use with these hosts: OpenAI's with a base URL, Azure's class, and the hosts' own."""

import json
from pathlib import Path
from typing import Any

import groq
import openai
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from tests.fakes.hosts import PROVIDERS
from tests.fakes.vendor_server import VendorServer, serving

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.call import worst_case
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.providers import load_price_book

VECTORS = Path(__file__).parents[1] / "vectors"
TOKEN = "lht_" + "a" * 40
USER: list[Any] = [{"role": "user", "content": "Hi"}]
BUDGET = Refusal(Reason.BUDGET_EXHAUSTED, "the lease has 12 micro-USD left; ask for more")
REVOKED = Refusal(Reason.LEASE_REVOKED, "the lease was revoked; acquire a new one")
STREAMS = {
    "deepseek": "stream_reasoning",
    "fireworks": "stream_text",
    "groq": "stream_hidden",
    "mistral": "stream_text",
    "openrouter": "stream_hidden",
    "own-llm": "stream_hidden",
    "together": "stream_text",
    "xai": "stream_reasoning",
}


def canned(server: VendorServer, vector: str) -> dict[str, Any]:
    """Make the server answer with a golden transcript."""
    content: dict[str, Any] = json.loads((VECTORS / server.provider.name / f"{vector}.json").read_text())
    server.answer = "".join(content["answer"]).encode()
    server.content_type = content["content_type"]
    return content


def metered(server: VendorServer) -> Usage | None:
    """What the meter of the last exchange read."""
    assert server.last.meter is not None
    return server.last.meter.usage


@pytest.mark.parametrize("name", STREAMS)
def test_openai_sdk_at_every_host(name: str) -> None:
    """With nothing but base URL and key: a stream gives its text and its usage is read; no chunk is without choices."""
    with serving(VendorServer(PROVIDERS[name], limit=77)) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key=TOKEN, max_retries=0)
        with client:
            vector = canned(server, STREAMS[name])
            chunks = list(client.chat.completions.create(model=vector["model"], messages=USER, stream=True))
            assert all(chunk.choices for chunk in chunks)
            assert metered(server) == Usage(**vector["usage"])
            assert server.last.credential == TOKEN
            assert 77 in server.last.sent.values()
            server.refuse = BUDGET
            with pytest.raises(openai.APIStatusError, match="leasehold refused"):
                client.chat.completions.create(model=vector["model"], messages=USER)
            server.refuse, server.cut = None, REVOKED
            server.answer = server.answer.partition(b"data: [DONE]")[0]
            with pytest.raises(openai.APIError, match="LEASE_REVOKED"):
                list(client.chat.completions.create(model=vector["model"], messages=USER, stream=True))


def test_azure_sdk() -> None:
    """Deployments by path with a version, the key in api-key; Responses; and the new form through the plain class."""
    with serving(VendorServer(PROVIDERS["azure"], limit=77)) as server:
        endpoint = f"http://127.0.0.1:{server.port}/azure"
        version = "2025-03-01-preview"
        with openai.AzureOpenAI(azure_endpoint=endpoint, api_key=TOKEN, api_version=version, max_retries=0) as client:
            vector = canned(server, "chat_stream_hidden")
            chunks = list(client.chat.completions.create(model="my-o3", messages=USER, stream=True))
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hé"
            assert metered(server) == Usage(**vector["usage"])
            assert server.last.plan is not None
            assert (server.last.plan.model, server.last.credential) == ("o3-mini", TOKEN)
            assert server.last.upstream is not None
            assert server.last.upstream.path == f"/openai/deployments/my-o3/chat/completions?api-version={version}"
            canned(server, "responses_stream")
            events = list(client.responses.create(model="my-o3", input="Hi", stream=True))
            assert events[-1].type == "response.completed"
            assert server.last.sent["max_output_tokens"] == 77
            canned(server, "embeddings")
            assert client.embeddings.create(model="my-embedding", input="a").usage.prompt_tokens == 8
            with pytest.raises(openai.PermissionDeniedError, match="not declared"):
                client.chat.completions.create(model="theirs", messages=USER)
        with openai.OpenAI(base_url=server.base_url, api_key=TOKEN, max_retries=0) as client:
            canned(server, "chat_json_cached_reasoning")
            answer = client.chat.completions.create(model="my-o3", messages=USER)
            assert answer.usage is not None
            assert server.last.upstream is not None
            assert server.last.upstream.path == "/openai/v1/chat/completions"
            assert server.last.sent["model"] == "my-o3"


def test_groq_sdk() -> None:
    """Its own SDK reads the usage where it looks for it, and raises its own errors."""
    with serving(VendorServer(PROVIDERS["groq"], limit=77)) as server:
        base_url = f"http://127.0.0.1:{server.port}/groq"
        with groq.Groq(base_url=base_url, api_key=TOKEN, max_retries=0) as client:
            vector = canned(server, "stream_hidden")
            chunks = list(client.chat.completions.create(model=vector["model"], messages=USER, stream=True))
            assert all(chunk.choices for chunk in chunks)
            last = chunks[-1].x_groq
            assert last is not None
            assert last.usage is not None
            assert last.usage.prompt_tokens == 43
            assert metered(server) == Usage(**vector["usage"])
            assert server.last.sent["max_completion_tokens"] == 77
            canned(server, "json_cached_reasoning")
            answer = client.chat.completions.create(model="openai/gpt-oss-120b", messages=USER)
            assert answer.usage is not None
            assert answer.usage.completion_tokens == 120
            server.refuse = BUDGET
            with pytest.raises(groq.APIStatusError, match="BUDGET_EXHAUSTED"):
                client.chat.completions.create(model=vector["model"], messages=USER)


def test_mistral_sdk() -> None:
    """Its own SDK: a plain answer, a stream, an embedding; a refusal and a cut are errors that say why."""
    with serving(VendorServer(PROVIDERS["mistral"], limit=77)) as server:
        client = Mistral(api_key=TOKEN, server_url=f"http://127.0.0.1:{server.port}/mistral")
        with client:
            vector = canned(server, "json_cached")
            answer = client.chat.complete(model=vector["model"], messages=USER)
            assert answer.usage.completion_tokens == 50
            assert metered(server) == Usage(**vector["usage"])
            assert (server.last.credential, server.last.sent["max_tokens"]) == (TOKEN, 77)
            vector = canned(server, "stream_text")
            events = list(client.chat.stream(model=vector["model"], messages=USER))
            assert events[-1].data.usage is not None
            assert metered(server) == Usage(**vector["usage"])
            vector = canned(server, "embeddings")
            assert client.embeddings.create(model=vector["model"], inputs=["a", "b"]).usage.prompt_tokens == 8
            server.refuse = BUDGET
            with pytest.raises(SDKError, match="BUDGET_EXHAUSTED"):
                client.chat.complete(model=vector["model"], messages=USER)


def test_cohere_sdk() -> None:
    """Its own SDK, where it is installed: it brings a tokenizer and a model hub, which no test of ours needs."""
    cohere = pytest.importorskip("cohere", reason="pip install cohere to run this; it is too heavy for the pinned set")
    with serving(VendorServer(PROVIDERS["cohere"], limit=77)) as server:
        client = cohere.ClientV2(api_key=TOKEN, base_url=f"http://127.0.0.1:{server.port}/cohere")
        with client:
            canned(server, "json_plain")
            answer = client.chat(model="command-a-03-2025", messages=USER)
            assert answer.usage.billed_units.output_tokens == 418
            assert metered(server) == Usage(5, output_tokens=418)
            assert (server.last.credential, server.last.sent["max_tokens"]) == (TOKEN, 77)
            canned(server, "stream_text")
            events = list(client.chat_stream(model="command-a-03-2025", messages=USER))
            assert events[-1].type == "message-end"
            assert metered(server) == Usage(17, output_tokens=9)
            canned(server, "embed")
            client.embed(model="embed-v4.0", input_type="search_query", texts=["a"], embedding_types=["float"])
            assert metered(server) == Usage(11)
            server.refuse = BUDGET
            with pytest.raises(cohere.core.api_error.ApiError, match="BUDGET_EXHAUSTED"):
                client.chat(model="command-a-03-2025", messages=USER)


def test_reranking_is_held_by_the_search() -> None:
    """A hundred pieces are a search: 150 short documents are two, one of 60,000 bytes more; a long query is refused."""
    cohere = PROVIDERS["cohere"]
    route = cohere.route("POST", "/v2/rerank", "")

    def searches(query: str, documents: list[str]) -> int:
        body: dict[str, Any] = {"model": "rerank-v3.5", "query": query, "documents": documents}
        return cohere.plan(route, {}, body, 0).units_bound.rerank_searches

    assert [searches("a", ["b"] * count) for count in (1, 100, 101, 150)] == [1, 1, 2, 2]
    # 60,000 bytes in pieces that have room for 490
    assert searches("a" * 10, ["b" * 60_000]) == 2
    with pytest.raises(Refusal, match="longer than 400 bytes") as caught:
        searches("a" * 401, ["b"])
    assert caught.value.reason is Reason.COST_UNBOUNDED
    plan = cohere.plan(route, {}, {"model": "rerank-v3.5", "query": "a", "documents": ["b"]}, 0)
    with pytest.raises(Refusal, match="no price is known"):
        worst_case(plan, load_price_book().price("cohere", "rerank-v3.5"), 0, NO_CAPS)


def test_openais_sdk_moderates_for_free_and_embeds_at_openrouter() -> None:
    """Moderations hold no money; OpenRouter says what an embedding cost, and that is read."""
    with serving(VendorServer(PROVIDERS["openai"])) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key=TOKEN, max_retries=0)
        server.answer = b'{"id": "m", "model": "omni-moderation-latest", "results": []}'
        assert client.moderations.create(model="omni-moderation-latest", input="Hi").results == []
        assert server.last.plan is not None
        assert not server.last.plan.metered
        client.close()
    with serving(VendorServer(PROVIDERS["openrouter"])) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key=TOKEN, max_retries=0)
        vector = canned(server, "embeddings")
        asked: dict[str, Any] = {"model": vector["model"], "encoding_format": "float"}
        assert client.embeddings.create(input="Hi", **asked).data[0].embedding == [0.1]
        assert metered(server) == Usage(**vector["usage"])
        client.close()
