"""From federation rules of the configuration to keys without a secret."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, assert_never
from urllib.parse import urlsplit

from leasehold_broker.adapters.http_upstream import HttpUpstream, UpstreamOrigin
from leasehold_broker.adapters.token_endpoints import AssertionFiles, HttpTokenEndpoints
from leasehold_broker.config.federation import (
    AnthropicRule,
    AwsRule,
    AzureRule,
    Federated,
    GoogleRule,
    OpenAIRule,
    OpenRouterRule,
    Rule,
)
from leasehold_broker.flows.agent_tokens import AgentTokens
from leasehold_broker.flows.federated_keys import FederatedKey, FederatedKeys, Minting
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.token_exchange import Exchange
from leasehold_broker.providers.exchanges.anthropic import AnthropicExchange
from leasehold_broker.providers.exchanges.aws import BedrockExchange
from leasehold_broker.providers.exchanges.azure import AzureExchange
from leasehold_broker.providers.exchanges.google import GoogleExchange
from leasehold_broker.providers.exchanges.openai import OpenAIExchange
from leasehold_broker.providers.exchanges.openrouter import OpenRouterExchange


class Federation:
    """The federated keys of a sidecar, with the client that asks for their tokens."""

    def __init__(
        self, tables: Sequence[Federated], clock: Clock, entropy: Entropy, on_minting: Callable[[Minting], None]
    ) -> None:
        """Connect to nobody yet."""
        made = [
            FederatedKey(
                table.name, table.provider, table.environment, table.version, _exchange(table.rule), table.token_file
            )
            for table in tables
        ]
        origins = {origin for key in made for origin in key.exchange.origins}
        self._upstream = HttpUpstream(
            # Only a server on this machine is reached without TLS: the configuration refuses any other.
            [UpstreamOrigin(origin, allow_private=urlsplit(origin).scheme == "http") for origin in origins]
        )
        self.agents = AgentTokens(clock, wanted=any(not key.assertion_file for key in made))
        self.keys = FederatedKeys(
            made, HttpTokenEndpoints(self._upstream), AssertionFiles(), self.agents, clock, entropy, on_minting
        )

    async def aclose(self) -> None:
        """Stop exchanges, forget tokens, close connections."""
        await self.keys.aclose()
        await self._upstream.close()


def _exchange(rule: Rule) -> Exchange:
    match rule:
        case AnthropicRule():
            made = AnthropicExchange(
                rule.federation_rule_id, rule.organization_id, rule.service_account_id, rule.workspace_id
            )
            return _with(made, origin=rule.origin)
        case OpenAIRule():
            return _with(OpenAIExchange(rule.identity_provider_id, rule.service_account_id), origin=rule.origin)
        case OpenRouterRule():
            return _with(OpenRouterExchange(rule.audience), origin=rule.origin)
        case GoogleRule():
            google = GoogleExchange(rule.audience, rule.service_account, rule.scope, rule.lifetime_seconds)
            return _with(google, sts_origin=rule.sts_origin, iam_origin=rule.iam_origin)
        case AwsRule():
            return BedrockExchange(rule.role_arn, rule.region, rule.models, rule.session_seconds, rule.sts_origin)
        case AzureRule():
            return _with(AzureExchange(rule.tenant_id, rule.client_id, rule.scope), origin=rule.origin)
        case _:
            assert_never(rule)


def _with(exchange: Any, **origins: str) -> Exchange:
    """The exchange at other origins than the provider's own, where some are configured."""
    given = {name: origin for name, origin in origins.items() if origin}
    made: Exchange = replace(exchange, **given)
    return made
