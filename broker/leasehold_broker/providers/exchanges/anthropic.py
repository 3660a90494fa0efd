"""Anthropic workload identity: RFC 7523 at POST /v1/oauth/token, under two beta headers. One token, one workspace."""

from dataclasses import dataclass

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.token_exchange import Exchanging, MintRequest
from leasehold_broker.providers.exchanges.messages import BEARER_GRANT, Fields, json_ask, oauth_token

ORIGIN = "https://api.anthropic.com"
BETAS = "oauth-2025-04-20,oidc-federation-2026-04-01"


@dataclass(frozen=True, slots=True)
class AnthropicExchange:
    """A federation rule (fdrl_...).

    The life of a token is the rule's, and at most twice what is left of the assertion's: set the rule's lifetime to
    the revocation time that you promise (60 s at least).
    """

    federation_rule_id: str
    organization_id: str
    service_account_id: str = ""
    workspace_id: str = ""
    origin: str = ORIGIN
    narrows: bool = False
    revocation: str = (
        "archiving the rule stops new tokens at once; a token that was minted lives until its end and cannot be revoked"
    )

    @property
    def origins(self) -> tuple[str, ...]:
        """See the port."""
        return (self.origin,)

    def exchange(self, assertion: Secret, wanted: MintRequest) -> Exchanging:
        """See the port."""
        del wanted  # the rule decides
        fields: Fields = {
            "grant_type": BEARER_GRANT,
            "assertion": assertion,
            "federation_rule_id": self.federation_rule_id,
            "organization_id": self.organization_id,
            "service_account_id": self.service_account_id,
            "workspace_id": self.workspace_id,
        }
        answer = yield json_ask(self.origin, "/v1/oauth/token", fields, ("anthropic-beta", BETAS))
        return oauth_token(answer, "Anthropic")
