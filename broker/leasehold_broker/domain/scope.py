"""What a lease may reach. Owns narrowing (a request within a ceiling) and the question "what forbids this call?"."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from leasehold_broker.domain.reasons import Reason, Refusal

ANYTHING = "*"
PROVIDERS = (
    "anthropic",
    "azure",
    "bedrock",
    "cohere",
    "deepseek",
    "fireworks",
    "gemini",
    "groq",
    "mistral",
    "openai",
    "openrouter",
    "together",
    "vertex",
    "xai",
)
"""Names of all vendors, as in scopes, policies, keys and paths. A test holds the modules in `providers` to it."""
OWN_PREFIX = "own-"
"""What the name of every other host begins with, so that a misspelt vendor is still an unknown one."""
PROVIDER_RULE = f"use one of {', '.join(PROVIDERS)}, or {OWN_PREFIX}NAME for a host that the sidecar's file declares"
_OWN = re.compile(rf"{OWN_PREFIX}[a-z0-9](?:[a-z0-9-]{{0,26}}[a-z0-9])?", re.ASCII)


def is_provider(name: str) -> bool:
    """True for a vendor, and for a name that a host of an operator's own may have."""
    return name in PROVIDERS or _OWN.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Scope:
    """The reach at one provider.

    Args:
        provider: a name that `is_provider` knows.
        key: name of the key that serves it; empty in a request.
        models, operations: exact names, or patterns ending in "*"; empty means anything in a lease or grant, and
            whatever the grant allows in a request.
        tools: the provider's server-side tool types, which cost money of their own; empty means none. Tools that
            the client runs itself are not scoped by us.
        max_output_tokens_per_request: 0 means no limit of ours.
    """

    provider: str
    key: str = ""
    models: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    max_output_tokens_per_request: int = 0


def matches(pattern: str, name: str) -> bool:
    """True when `pattern` is `name`, or ends in "*" and `name` starts with the rest. No other wildcard exists."""
    if pattern.endswith(ANYTHING):
        return name.startswith(pattern[:-1])
    return pattern == name


def within(pattern: str, ceiling: str) -> bool:
    """True when everything that `pattern` matches is matched by `ceiling` too."""
    if ceiling.endswith(ANYTHING):
        return pattern.removesuffix(ANYTHING).startswith(ceiling[:-1])
    return pattern == ceiling


def _narrow_names(kind: str, wanted: tuple[str, ...], ceiling: tuple[str, ...], reason: Reason) -> tuple[str, ...]:
    if not wanted or not ceiling:
        return wanted or ceiling
    for name in wanted:
        if not any(within(name, limit) for limit in ceiling):
            allowed = ", ".join(ceiling) or "none"
            raise Refusal(reason, f"{kind} {name!r} is outside what is granted; granted: {allowed}")
    return wanted


def narrow(wanted: Scope, ceiling: Scope) -> Scope:
    """The scope to issue for `wanted` under `ceiling`; what is not stated is taken from the ceiling.

    Raises:
        Refusal: MODEL_NOT_ALLOWED or SCOPE_EXCEEDED where `wanted` reaches beyond the ceiling.
    """
    models = _narrow_names("model", wanted.models, ceiling.models, Reason.MODEL_NOT_ALLOWED)
    operations = _narrow_names("operation", wanted.operations, ceiling.operations, Reason.SCOPE_EXCEEDED)
    tools = (
        _narrow_names("tool", wanted.tools, ceiling.tools or ("",), Reason.SCOPE_EXCEEDED)
        if wanted.tools
        else ceiling.tools
    )
    limit, top = wanted.max_output_tokens_per_request, ceiling.max_output_tokens_per_request
    if top and limit > top:
        raise Refusal(
            Reason.SCOPE_EXCEEDED, f"max_output_tokens_per_request {limit} is above the granted {top}; ask for less"
        )
    return Scope(wanted.provider, ceiling.key, models, operations, tools, limit or top)


def forbids(scope: Scope, operation: str, model: str | None, tools: Iterable[str]) -> Refusal | None:
    """The reason this scope forbids a call, or None. Everything unstated by the call (model None) is not checked."""
    if scope.operations and not any(matches(allowed, operation) for allowed in scope.operations):
        return Refusal(
            Reason.SCOPE_EXCEEDED, f"operation {operation!r} is outside this lease's scope; acquire one for it"
        )
    if model is not None and scope.models and not any(matches(allowed, model) for allowed in scope.models):
        allowed_models = ", ".join(scope.models)
        return Refusal(
            Reason.MODEL_NOT_ALLOWED, f"model {model!r} is outside this lease's scope; it allows: {allowed_models}"
        )
    for tool in tools:
        if not any(matches(allowed, tool) for allowed in scope.tools):
            return Refusal(
                Reason.SCOPE_EXCEEDED,
                f"server-side tool {tool!r} is outside this lease's scope; the grant must name it under tools",
            )
    return None
