"""Bodies of InvokeModel of other models than Claude: Amazon's Nova and Meta's Llama. Pure.

Owns what goes in and where the usage comes out; their texts are bounded as Converse's are. The last message of a stream
carries Bedrock's own count, whatever the model. Models whose whole answer says nothing of its usage (Mistral's) are not
here: Converse serves them. Sources: the user guides of Nova and Bedrock, "model parameters".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Json
from leasehold_broker.providers import bedrock_body as shapes
from leasehold_broker.providers.bounds import Parts
from leasehold_broker.providers.checks import (
    OUTPUT_TOKENS_MAX,
    Object,
    as_object,
    as_text,
    check_fields,
    unbounded,
    whole,
)
from leasehold_broker.providers.usage import converse_usage

NOVA_FIELDS: Final = frozenset(("schemaVersion", "messages", "system", "inferenceConfig", "toolConfig"))
NOVA_CONFIG: Final = frozenset(("maxTokens", "temperature", "topP", "topK", "stopSequences"))
LLAMA_FIELDS: Final = frozenset(("prompt", "max_gen_len", "temperature", "top_p"))


@dataclass(frozen=True, slots=True)
class Family:
    """One family of models.

    Args:
        walk: checks a body for a model, and adds up what its bytes do not bound.
        limit: the output limit that a checked body states.
        limited: a body with this limit.
        count: the counts of a whole answer, in the words of Converse; None where it has none.
    """

    walk: Callable[[Object, str], Parts]
    limit: Callable[[Object], int | None]
    limited: Callable[[Object, int], Object]
    count: Callable[[Object], Object | None]

    def usage(self, answer: Object) -> Usage | None:
        """Usage of a whole answer, or of what the last message of a stream counts."""
        metrics = answer.get("amazon-bedrock-invocationMetrics")
        report = _counted(metrics, _METRICS) if isinstance(metrics, dict) else self.count(answer)
        return None if report is None else converse_usage(report, None, None, writes_1h=False)


_METRICS: Final = {
    "inputTokens": "inputTokenCount",
    "outputTokens": "outputTokenCount",
    "cacheReadInputTokens": "cacheReadInputTokenCount",
    "cacheWriteInputTokens": "cacheWriteInputTokenCount",
}
_NOVA_COUNTS: Final = {**_METRICS, "inputTokens": "inputTokens", "outputTokens": "outputTokens"}
_LLAMA_COUNTS: Final = {"inputTokens": "prompt_token_count", "outputTokens": "generation_token_count"}


def _counted(report: Object, names: Mapping[str, str]) -> Object:
    """The report under Converse's names."""
    counts: Object = {ours: report.get(theirs) for ours, theirs in names.items()}
    return counts


def _nova_walk(body: Object, model: str) -> Parts:
    check_fields(body, "", NOVA_FIELDS, {})
    check_fields(shapes.config(body), "inferenceConfig", NOVA_CONFIG, {"max_new_tokens": "use maxTokens"})
    plain: Object = {name: body[name] for name in ("messages", "system", "toolConfig") if name in body}
    return shapes.walk(plain, model)


def _nova_limited(body: Object, limit: int) -> Object:
    return {**body, "inferenceConfig": {**shapes.config(body), "maxTokens": limit}}


def _nova_count(answer: Object) -> Object | None:
    usage = answer.get("usage")
    return _counted(usage, _NOVA_COUNTS) if isinstance(usage, dict) else None


def _llama_walk(body: Object, model: str) -> Parts:
    del model
    check_fields(body, "", LLAMA_FIELDS, {"images": "no bound is known for this model's images; send text"})
    as_text(body.get("prompt"), "prompt")
    return Parts()


def _llama_limit(body: Object) -> int | None:
    return whole(body, "max_gen_len", 1, OUTPUT_TOKENS_MAX)


def _llama_count(answer: Object) -> Object | None:
    return _counted(answer, _LLAMA_COUNTS) if "prompt_token_count" in answer else None


_FAMILIES: Final = {
    "amazon.nova-": Family(_nova_walk, shapes.output_limit, _nova_limited, _nova_count),
    "meta.llama": Family(_llama_walk, _llama_limit, lambda body, limit: {**body, "max_gen_len": limit}, _llama_count),
}


def family(model: str) -> Family:
    """The family of a model.

    Raises:
        Refusal: COST_UNBOUNDED for one whose bodies are not known here.
    """
    found = next((each for name, each in _FAMILIES.items() if name in model), None)
    if found is None:
        raise unbounded(
            "model", "InvokeModel is bounded for Claude, Nova and Llama models only; use Converse for this one"
        )
    return found


def counted_input(body: Object) -> Json:
    """The checked `converse` member of a CountTokens request.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    check_fields(body, "", frozenset(("input",)), {})
    held = as_object(body.get("input"), "input")
    check_fields(held, "input", frozenset(("converse",)), {"invokeModel": "count the same messages as converse"})
    return held.get("converse")
