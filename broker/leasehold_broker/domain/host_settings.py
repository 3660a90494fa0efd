"""What an operator says about a host, as the providers take it. Owns the kinds and which of them can be tuned."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

AZURE = "azure"
COMPATIBLE = "openai_compatible"
BEDROCK, VERTEX = "bedrock", "vertex"
TUNABLE = ("deepseek", "fireworks", "groq", "mistral", "openrouter", "together", "xai", COMPATIBLE)
"""Kinds whose chat requests an operator may widen."""
KINDS = (*TUNABLE, "openai", AZURE, BEDROCK, VERTEX)
"""Dialects that a host of one's own may speak: a vendor's, or plain OpenAI-compatible (vLLM, Ollama, a gateway)."""
PROJECT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]|[0-9]{6,19}")
"""Id or number of a project of Google Cloud."""
LOCATION = re.compile(r"global|us|eu|[a-z]{2,20}-[a-z]{2,20}[0-9]{1,2}")
"""The global endpoint, a multi-region or a region of Vertex AI."""
REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]{2,16}){1,2}-[0-9]{1,2}")
"""A region of AWS."""
OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class HostSettings:
    """The dialect of one declared provider, and where it departs from it.

    Args:
        kind: one of `KINDS`.
        path: what its paths begin with, e.g. "/v1".
        output_limit: the member that bounds an answer, one of `OUTPUT_LIMITS`.
        asks_for_usage: a stream reports usage only when `stream_options` ask for it.
        image_tokens_max: the most input tokens of one inline image; 0: as the kind has it.
        extra_fields: further members of a chat request to send on. Their text is bounded with the rest; that they
            cause no other cost is the operator's word.
        deployments: deployment to the model that it serves, where the host has them (Azure).
        project: who pays, where a path says so (Vertex AI).
        location: where it is served (Vertex AI, Bedrock); "": as the kind has it.
    """

    kind: str
    path: str = "/v1"
    output_limit: str = OUTPUT_LIMITS[0]
    asks_for_usage: bool = True
    image_tokens_max: int = 0
    extra_fields: tuple[str, ...] = ()
    deployments: Mapping[str, str] = field(default_factory=dict)
    project: str = ""
    location: str = ""
