"""Google workload identity federation: RFC 8693 at sts.googleapis.com, then a service account is impersonated.

https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token and the generateAccessToken method of
iamcredentials.googleapis.com. The lifetime is asked for: it is what a lease may promise.
"""

from dataclasses import dataclass
from datetime import datetime

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.token_exchange import Exchanging, MintRequest
from leasehold_broker.providers.exchanges.messages import (
    ACCESS_TOKEN_TYPE,
    EXCHANGE_GRANT,
    JWT_TYPE,
    Fields,
    answer_fields,
    form_ask,
    json_ask,
    malformed,
    minted,
    oauth_token,
)

STS_ORIGIN = "https://sts.googleapis.com"
IAM_ORIGIN = "https://iamcredentials.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
WHO = "Google"
CLOCK_SECONDS_MAX = 60
"""So much later than asked for a token may end by our clock, which may be wrong."""


@dataclass(frozen=True, slots=True)
class GoogleExchange:
    """A workload identity provider, and the service account it may impersonate.

    Args:
        audience: "//iam.googleapis.com/projects/.../providers/...".
        service_account: e-mail; "" uses the federated token itself.
        scope: of the token.
        lifetime_seconds: of the impersonated token, 3600 at most (43200 where the organisation allows it).
        sts_origin, iam_origin: Google's.
    """

    audience: str
    service_account: str = ""
    scope: str = SCOPE
    lifetime_seconds: int = 900
    sts_origin: str = STS_ORIGIN
    iam_origin: str = IAM_ORIGIN
    narrows: bool = False
    revocation: str = (
        "removing the provider or the impersonation stops new tokens; a token that was minted lives until its end, "
        "unless the service account is disabled"
    )

    @property
    def origins(self) -> tuple[str, ...]:
        """See the port."""
        return (self.sts_origin, self.iam_origin)

    def exchange(self, assertion: Secret, wanted: MintRequest) -> Exchanging:
        """See the port."""
        fields: Fields = {
            "grant_type": EXCHANGE_GRANT,
            "audience": self.audience,
            "scope": SCOPE if self.service_account else self.scope,
            "requested_token_type": ACCESS_TOKEN_TYPE,
            "subject_token": assertion,
            "subject_token_type": JWT_TYPE,
        }
        federated = oauth_token((yield form_ask(self.sts_origin, "/v1/token", fields)), WHO)
        if not self.service_account:
            return federated
        life = min(self.lifetime_seconds, wanted.life_seconds_max or self.lifetime_seconds)
        path = f"/v1/projects/-/serviceAccounts/{self.service_account}:generateAccessToken"
        answer = yield json_ask(
            self.iam_origin, path, {"scope": [self.scope], "lifetime": f"{life}s"}, bearer=federated.token
        )
        answered = answer_fields(answer, WHO)
        try:
            until = datetime.fromisoformat(str(answered.get("expireTime")))
            left = int(until.timestamp() - wanted.wall_ms / 1000)
        except ValueError:
            raise malformed(WHO, "gave a token without a usable end") from None
        if wanted.life_seconds_max is not None and left > life + CLOCK_SECONDS_MAX:
            # It would be handed out under a promise that it does not keep.
            raise malformed(WHO, "gave a token that lives longer than was asked for; check the clocks")
        # By our clock, which may be wrong: never longer than what was asked for.
        return minted(answered.get("accessToken"), min(left, life), WHO)
