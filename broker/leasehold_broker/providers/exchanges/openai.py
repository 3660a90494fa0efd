"""OpenAI workload identity: RFC 8693 at POST https://auth.openai.com/oauth/token, in JSON."""

from dataclasses import dataclass

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.token_exchange import Exchanging, MintRequest
from leasehold_broker.providers.exchanges.messages import EXCHANGE_GRANT, JWT_TYPE, Fields, json_ask, oauth_token

ORIGIN = "https://auth.openai.com"


@dataclass(frozen=True, slots=True)
class OpenAIExchange:
    """A service account, reached through a workload identity provider. A JWT-SVID needs iss, iat and a kid header."""

    identity_provider_id: str
    service_account_id: str
    origin: str = ORIGIN
    narrows: bool = False
    revocation: str = (
        "disabling the federation rule or the service account stops new tokens; when a minted token ends before its "
        "time is not documented"
    )

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
            "identity_provider_id": self.identity_provider_id,
            "service_account_id": self.service_account_id,
        }
        answer = yield json_ask(self.origin, "/oauth/token", fields)
        return oauth_token(answer, "OpenAI")
