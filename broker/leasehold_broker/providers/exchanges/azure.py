"""Microsoft Entra: the workload token as client assertion of the client credentials grant (RFC 7523 section 2.2).

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow, third case.
"""

from dataclasses import dataclass

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.token_exchange import Exchanging, MintRequest
from leasehold_broker.providers.exchanges.messages import Fields, form_ask, oauth_token

ORIGIN = "https://login.microsoftonline.com"
SCOPE = "https://cognitiveservices.azure.com/.default"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class AzureExchange:
    """An application or managed identity with a federated credential for our issuer and subject."""

    tenant_id: str
    client_id: str
    scope: str = SCOPE
    origin: str = ORIGIN
    narrows: bool = False
    revocation: str = (
        "removing the federated credential stops new tokens; a token that was minted lives until its end (60 to 90 "
        "minutes), unless the role assignment is removed"
    )

    @property
    def origins(self) -> tuple[str, ...]:
        """See the port."""
        return (self.origin,)

    def exchange(self, assertion: Secret, wanted: MintRequest) -> Exchanging:
        """See the port."""
        del wanted  # Entra decides
        fields: Fields = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "scope": self.scope,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
        }
        answer = yield form_ask(self.origin, f"/{self.tenant_id}/oauth2/v2.0/token", fields)
        return oauth_token(answer, "Entra")
