"""Hand a lease to the vendors' SDKs. Owns argument and variable names; refuses to import an SDK.

    client = openai.OpenAI(**openai_kwargs(lease))
    client = anthropic.Anthropic(**anthropic_kwargs(lease))
    client = genai.Client(**google_kwargs(lease))

    unsigned = Config(signature_version=UNSIGNED)
    runtime = boto3.client("bedrock-runtime", region_name=..., config=unsigned, **bedrock_kwargs(lease))
    runtime.meta.events.register("before-send.bedrock-runtime", bedrock_bearer(lease))

boto3 sends a bearer token of its own (AWS_BEARER_TOKEN_BEDROCK) over HTTPS only, so the variables serve an egress with
TLS; over loopback HTTP the handler above puts it into the request.

The token stays the same while the lease is renewed, so a static key is enough for one lease. Where a process
acquires one lease after another, give the OpenAI SDK a callable key.

Unix socket instead of loopback TCP: the SDKs that are built on httpx take a client of your own, e.g.
`openai.OpenAI(**openai_kwargs(lease), http_client=httpx.Client(transport=httpx.HTTPTransport(uds=path)))` with
`path = lease.endpoint("openai").unix_socket`; the host in the base URL is then only a name.

A proxy from HTTP_PROXY must not stand between an SDK and the sidecar: put 127.0.0.1 into NO_PROXY, as
`leasehold exec` does.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from leasehold._state import Endpoint, LeaseToken

ANTHROPIC, OPENAI, GEMINI, BEDROCK = "anthropic", "openai", "gemini", "bedrock"

BASE_URL_VARIABLES: Mapping[str, tuple[str, ...]] = {
    # Second names: langchain and llama-index (OPENAI_API_BASE), langchain (ANTHROPIC_API_URL), litellm (*_API_BASE).
    OPENAI: ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    ANTHROPIC: ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL", "ANTHROPIC_API_BASE"),
    GEMINI: ("GOOGLE_GEMINI_BASE_URL", "GEMINI_API_BASE"),
    BEDROCK: ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "ANTHROPIC_BEDROCK_BASE_URL"),
    "azure": ("AZURE_OPENAI_ENDPOINT",),
    "cohere": ("CO_API_URL",),
    "fireworks": ("FIREWORKS_BASE_URL",),
    "groq": ("GROQ_BASE_URL",),
    "together": ("TOGETHER_BASE_URL",),
    "vertex": ("GOOGLE_VERTEX_BASE_URL",),
}
KEY_VARIABLES: Mapping[str, tuple[str, ...]] = {
    OPENAI: ("OPENAI_API_KEY",),
    ANTHROPIC: ("ANTHROPIC_API_KEY",),
    GEMINI: ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    BEDROCK: ("AWS_BEARER_TOKEN_BEDROCK",),
    "azure": ("AZURE_OPENAI_API_KEY",),
    "cohere": ("CO_API_KEY", "COHERE_API_KEY"),
    "fireworks": ("FIREWORKS_API_KEY",),
    "groq": ("GROQ_API_KEY",),
    "together": ("TOGETHER_API_KEY",),
}
"""Vendors whose SDK reads its address from the environment as well: a lease token must not be sent anywhere else."""
_SDK_ADDS = {"azure": "/openai/v1", "fireworks": "/v1", "groq": "/openai/v1", "together": "/v1"}
"""What a vendor's SDK puts behind its base URL itself, though OpenAI's wants it in there."""
STRIPPED_VARIABLES = frozenset(
    {
        *(name for names in KEY_VARIABLES.values() for name in names),
        *("OPENAI_ADMIN_KEY", "OPENAI_CUSTOM_HEADERS", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"),
        *(
            "ANTHROPIC_AUTH_TOKEN",
            "ANTHROPIC_CUSTOM_HEADERS",
            "ANTHROPIC_IDENTITY_TOKEN",
            "ANTHROPIC_IDENTITY_TOKEN_FILE",
        ),
        *("ANTHROPIC_PROFILE", "ANTHROPIC_FEDERATION_RULE_ID", "CLAUDE_CODE_OAUTH_TOKEN"),
        *("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE", "GOOGLE_GENAI_API_KEY"),
        *("ANTHROPIC_FOUNDRY_API_KEY", "GOOGLE_GENAI_ACCESS_TOKEN", "DEEPSEEK_API_KEY", "MISTRAL_API_KEY"),
        *("OPENROUTER_API_KEY", "PERPLEXITY_API_KEY", "XAI_API_KEY", "XAI_MANAGEMENT_KEY"),
        *("FIREWORKS_CUSTOM_HEADERS", "GROQ_CUSTOM_HEADERS", "TOGETHER_CUSTOM_HEADERS"),
    }
)
"""Provider keys, and switches that send an SDK around the sidecar: removed from a child before the lease is put in."""
MINTED_ANTHROPIC = "sk-ant-oat"
"""How tokens begin that Anthropic mints for a workload."""
MINTED_GOOGLE = "ya29."
"""How access tokens of Google's begin."""
LEASE_VARIABLE = "LEASEHOLD_LEASE"
_NO_PROXY = ("127.0.0.1", "localhost", "::1")


class Lease(Protocol):
    """What a handle must offer here; both handles do."""

    @property
    def name(self) -> str:
        """The lease's name."""
        ...

    @property
    def token(self) -> LeaseToken:
        """The lease's token."""
        ...

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where the providers are reached."""
        ...

    def endpoint(self, provider: str | None = None) -> Endpoint:
        """Where one provider is reached."""
        ...


def openai_kwargs(lease: Lease, provider: str = OPENAI) -> dict[str, Any]:
    """Arguments for `openai.OpenAI` and `openai.AsyncOpenAI`: base_url, api_key.

    Args:
        lease: what is to be used.
        provider: OpenAI, or another host that speaks its dialect: "groq", "mistral", "azure", "own-...".

    Raises:
        InvalidRequest: the lease does not reach it. The same for the other functions and their providers.
    """
    return {"base_url": lease.endpoint(provider).base_url, "api_key": lease.token.reveal()}


def openai_key(current: Callable[[], Lease]) -> Callable[[], str]:
    """A callable key for `openai.OpenAI(api_key=...)`: the token of whatever lease is current at each request."""

    def key() -> str:
        return current().token.reveal()

    return key


def openai_async_key(current: Callable[[], Lease]) -> Callable[[], Awaitable[str]]:
    """The same for `openai.AsyncOpenAI`, which awaits its callable."""

    async def key() -> str:
        return current().token.reveal()

    return key


def anthropic_kwargs(lease: Lease) -> dict[str, Any]:
    """Arguments for `anthropic.Anthropic` and `anthropic.AsyncAnthropic`: base_url, api_key.

    For a minted token: auth_token and the beta under which the API takes it, instead of api_key.
    """
    base_url, secret = lease.endpoint(ANTHROPIC).base_url, lease.token.reveal()
    if secret.startswith(MINTED_ANTHROPIC):
        return {"base_url": base_url, "auth_token": secret, "default_headers": {"anthropic-beta": "oauth-2025-04-20"}}
    return {"base_url": base_url, "api_key": secret}


def google_kwargs(lease: Lease) -> dict[str, Any]:
    """Arguments for `google.genai.Client`: api_key, http_options, and vertexai off whatever the environment says.

    For a minted token: the same client, which sends it as bearer token and no key.
    """
    secret = lease.token.reveal()
    options: dict[str, Any] = {"base_url": lease.endpoint(GEMINI).base_url}
    if secret.startswith(MINTED_GOOGLE):
        # The SDK insists on a key and sends it in a header of its own; the API takes a token in another, and not both.
        options |= _bearer_for_key(secret)
        secret = "minted"  # noqa: S105 - a placeholder, taken out of each request
    return {"api_key": secret, "vertexai": False, "http_options": options}


def _bearer_for_key(secret: str) -> dict[str, Any]:
    """Options of google-genai that change each request just before it is sent, whichever HTTP client carries it.

    Its clients drop the arguments that they do not know: hooks are httpx's, middlewares are aiohttp's.
    """

    def put(request: Any) -> None:
        request.headers.pop("x-goog-api-key", None)
        request.headers["Authorization"] = f"Bearer {secret}"

    async def put_later(request: Any) -> None:
        put(request)

    async def between(request: Any, handler: Any) -> Any:
        put(request)
        return await handler(request)

    return {
        "client_args": {"event_hooks": {"request": [put]}},
        "async_client_args": {"event_hooks": {"request": [put_later]}, "middlewares": (between,)},
    }


def bedrock_kwargs(lease: Lease) -> dict[str, Any]:
    """Arguments for `boto3.client("bedrock-runtime", ...)`: endpoint_url."""
    return {"endpoint_url": lease.endpoint(BEDROCK).base_url}


def bedrock_bearer(lease: Lease) -> Callable[..., None]:
    """A handler of boto3's event `before-send.bedrock-runtime`: puts the lease token into an unsigned request."""

    def put(request: Any, **_: Any) -> None:
        request.headers["Authorization"] = f"Bearer {lease.token.reveal()}"

    return put


def environment(lease: Lease) -> dict[str, str]:
    """The variables that the SDKs and the frameworks on them read, for every provider that the lease reaches.

    For each there are LEASEHOLD_<NAME>_BASE_URL and LEASEHOLD_<NAME>_API_KEY, whatever the name ("own-llm":
    LEASEHOLD_OWN_LLM_BASE_URL); for the vendors of `KEY_VARIABLES` those of their SDKs as well. Mistral's, xAI's and
    OpenRouter's read a key but no address: with their variable set they would send the lease token to the vendor. A
    token that Google minted is no key, and its SDK has no variable for it: use `google_kwargs`.

    They hold the lease token: give them to the process that is to use the lease, and to no other.
    """
    variables = {LEASE_VARIABLE: lease.name}
    secret = lease.token.reveal()
    for endpoint in lease.endpoints:
        provider, url = endpoint.provider, endpoint.base_url
        ours = f"LEASEHOLD_{provider.upper().replace('-', '_')}"
        variables.update({f"{ours}_BASE_URL": url, f"{ours}_API_KEY": secret})
        short = url.removesuffix(_SDK_ADDS.get(provider, ""))
        variables.update(dict.fromkeys(BASE_URL_VARIABLES.get(provider, ()), short))
        if not (provider == GEMINI and secret.startswith(MINTED_GOOGLE)):
            variables.update(dict.fromkeys(KEY_VARIABLES.get(provider, ()), secret))
    return variables


def child_environment(lease: Lease, parent: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The environment of a process that is to use the lease and no key.

    Args:
        lease: what it may use.
        parent: the variables to start from.

    Returns:
        The variables, and the names of the provider keys and switches that were taken out.
    """
    removed = sorted(STRIPPED_VARIABLES & parent.keys())
    child = {name: value for name, value in parent.items() if name not in STRIPPED_VARIABLES}
    child.update(environment(lease))
    for name in ("NO_PROXY", "no_proxy"):
        child[name] = _with_hosts(child.get(name, ""), _NO_PROXY)
    return child, removed


def _with_hosts(value: str, hosts: Iterable[str]) -> str:
    listed = [each.strip() for each in value.split(",") if each.strip()]
    return ",".join([*listed, *(host for host in hosts if host not in listed)])
