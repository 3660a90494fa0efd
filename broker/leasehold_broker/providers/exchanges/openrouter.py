"""OpenRouter workload identity: RFC 8693 at POST /api/v1/oauth/token, which OpenRouter opens on request.

Its documentation gives the endpoint and the grant; the form encoding is the RFC's. Not tried against the real one.
"""

from dataclasses import dataclass

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.token_exchange import Exchanging, MintRequest
from leasehold_broker.providers.exchanges.messages import EXCHANGE_GRANT, JWT_TYPE, Fields, form_ask, oauth_token

ORIGIN = "https://openrouter.ai"


@dataclass(frozen=True, slots=True)
class OpenRouterExchange:
    """A rule, found by OpenRouter from the token's claims; `audience` where it asks for one."""

    audience: str = ""
    origin: str = ORIGIN
    narrows: bool = False
    revocation: str = "a minted token lives until its end: at most 15 minutes, and no longer than the workload token"

    @property
    def origins(self) -> tuple[str, ...]:
        """See the port."""
        return (self.origin,)

    def exchange(self, assertion: Secret, wanted: MintRequest) -> Exchanging:
        """See the port."""
        del wanted  # the rule decides
        fields: Fields = {
            "grant_type": EXCHANGE_GRANT,
            "subject_token": assertion,
            "subject_token_type": JWT_TYPE,
            "audience": self.audience,
        }
        answer = yield form_ask(self.origin, "/api/v1/oauth/token", fields)
        return oauth_token(answer, "OpenRouter")
