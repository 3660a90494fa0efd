"""Token endpoints of all providers, and the exchanges that ask them."""

import time

import pytest
from tests.fakes.issuer import ec_key, sign
from tests.fakes.token_services import Rule, TokenServices, serve

from leasehold_broker.adapters.http_upstream import HttpUpstream, UpstreamOrigin
from leasehold_broker.adapters.token_endpoints import HttpTokenEndpoints
from leasehold_broker.providers.exchanges.anthropic import AnthropicExchange
from leasehold_broker.providers.exchanges.aws import BedrockExchange
from leasehold_broker.providers.exchanges.azure import AzureExchange
from leasehold_broker.providers.exchanges.google import GoogleExchange
from leasehold_broker.providers.exchanges.openai import OpenAIExchange
from leasehold_broker.providers.exchanges.openrouter import OpenRouterExchange

ROLE = "arn:aws:iam::123456789012:role/agents"
POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"
ACCOUNT = "agents@project.iam.gserviceaccount.com"
RULES = {
    "fdrl_1": "https://api.anthropic.com",
    "idp_1/svc_1": "https://api.openai.com/v1",
    "openrouter": "https://openrouter.ai",
    POOL: POOL,
    "tenant/client": "api://AzureADTokenExchange",
    ROLE: "sts.amazonaws.com",
}


def workload_token(audience: str, **more) -> str:
    """A JWT as a cluster would project it."""
    now = int(time.time())
    claims = {"iss": "https://idp.test", "sub": "sidecar-a", "aud": audience, "iat": now, "exp": now + 3600}
    return sign(claims | more, ec_key(), "ES256")


@pytest.fixture
def services():
    """All token endpoints, with a rule each."""
    public = ec_key().public_key()
    services = TokenServices({name: Rule(public, audience) for name, audience in RULES.items()})
    stop = serve(services)
    yield services
    stop()


@pytest.fixture
async def endpoints(services):
    """Ours, over the egress' own HTTP client."""
    upstream = HttpUpstream([UpstreamOrigin(services.origin, allow_private=True)])
    yield HttpTokenEndpoints(upstream)
    await upstream.close()


def exchanges(origin: str) -> dict:
    """One exchange of each kind, with the audience of its workload token."""
    google = {"sts_origin": origin, "iam_origin": origin}
    return {
        "anthropic": (AnthropicExchange("fdrl_1", "org", "svac_1", origin=origin), RULES["fdrl_1"]),
        "openai": (OpenAIExchange("idp_1", "svc_1", origin=origin), RULES["idp_1/svc_1"]),
        "openrouter": (OpenRouterExchange(origin=origin), RULES["openrouter"]),
        "google": (GoogleExchange(POOL, ACCOUNT, **google), POOL),
        "google-direct": (GoogleExchange(POOL, **google), POOL),
        "azure": (AzureExchange("tenant", "client", origin=origin), RULES["tenant/client"]),
        "aws": (BedrockExchange(ROLE, "eu-central-1", sts_origin=origin), RULES[ROLE]),
    }
