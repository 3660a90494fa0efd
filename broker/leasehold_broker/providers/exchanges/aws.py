"""Amazon Bedrock: AssumeRoleWithWebIdentity under a session policy, then a short-term API key, made here.

The session policy lets the session invoke the lease's models and nothing else. The API key is a presigned call of
CallWithBearerToken (Signature Version 4), valid for as long as the session and in one region; no server knows that it
was made. https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html and
https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-generate.html.
"""

import base64
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.token_exchange import (
    ExchangeFault,
    ExchangeState,
    Exchanging,
    Minted,
    MintRequest,
    TokenAnswer,
)
from leasehold_broker.providers.exchanges.messages import Fields, check_status, form_ask, malformed

WHO = "AWS"
SESSION_SECONDS_MIN = 900
KEY_SECONDS_MAX = 12 * 3600
POLICY_CHARACTERS_MAX = 2048
_HOST = "bedrock.amazonaws.com"
_FIELDS = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
_ERROR = re.compile(rb"<Code>([A-Za-z.]{1,64})</Code>")


@dataclass(frozen=True, slots=True)
class BedrockExchange:
    """A role that trusts our issuer.

    Args:
        role_arn: the role.
        region: of the models, and of the key.
        models: model ids, each exact or ending in "*"; what a lease without models may reach. Empty: any model.
        session_seconds: life of a session, 900 at least.
        sts_origin: "" for the region's own.
    """

    role_arn: str
    region: str
    models: tuple[str, ...] = ()
    session_seconds: int = SESSION_SECONDS_MIN
    sts_origin: str = ""
    narrows: bool = True
    revocation: str = (
        "deny bedrock:CallWithBearerToken on the role, or revoke the role's sessions by issue time: both reach every "
        "key of the role; one key alone cannot be revoked and lives until its session ends"
    )

    @property
    def origins(self) -> tuple[str, ...]:
        """See the port."""
        return (self.sts_origin or f"https://sts.{self.region}.amazonaws.com",)

    def exchange(self, assertion: Secret, wanted: MintRequest) -> Exchanging:
        """See the port."""
        policy = session_policy(self.region, wanted.models or self.models)
        if len(policy) > POLICY_CHARACTERS_MAX:
            message = f"a session policy for {len(wanted.models)} models is too long for AWS; acquire for fewer"
            raise ExchangeFault(ExchangeState.REFUSED, message)
        fields: Fields = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": self.role_arn,
            "RoleSessionName": "leasehold",
            "WebIdentityToken": assertion,
            "DurationSeconds": str(self.session_seconds),
            "Policy": policy,
        }
        session = _session((yield form_ask(self.origins[0], "/", fields)))
        left = self.session_seconds if session.end is None else int(session.end.timestamp() - wanted.wall_ms / 1000)
        life = min(left, self.session_seconds, KEY_SECONDS_MAX, wanted.life_seconds_max or KEY_SECONDS_MAX)
        if life < 1:
            raise malformed(WHO, "gave a session that has ended by our clock; check the clocks")
        return Minted(short_term_key(session, self.region, life, wanted.wall_ms), life)


@dataclass(frozen=True, slots=True)
class Session:
    """Credentials of a session; `end` as AWS says."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    end: datetime | None

    def __repr__(self) -> str:
        """Nothing of it."""
        return "Session(***)"


def session_policy(region: str, models: tuple[str, ...]) -> str:
    """What a session may do: invoke these models, by name or through an inference profile of the same name."""
    resources = [
        arn
        for model in models or ("*",)
        for arn in (
            f"arn:aws:bedrock:*::foundation-model/{model}",
            f"arn:aws:bedrock:{region}:*:inference-profile/*{model}",
        )
    ]
    invoke = {
        "Effect": "Allow",
        "Action": ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"],
        "Resource": resources,
    }
    bearer = {"Effect": "Allow", "Action": "bedrock:CallWithBearerToken", "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [invoke, bearer]}, separators=(",", ":"))


def short_term_key(session: Session, region: str, life_seconds: int, wall_ms: int) -> Secret:
    """The API key: a presigned POST of CallWithBearerToken, without its scheme, in base64."""
    at = datetime.fromtimestamp(wall_ms // 1000, UTC)
    stamp, day = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d")
    scope = f"{day}/{region}/bedrock/aws4_request"
    query = "&".join(
        f"{name}={quote(value, safe='-_.~')}"
        for name, value in (
            ("Action", "CallWithBearerToken"),
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", f"{session.access_key_id}/{scope}"),
            ("X-Amz-Date", stamp),
            ("X-Amz-Expires", str(life_seconds)),
            ("X-Amz-Security-Token", session.session_token),
            ("X-Amz-SignedHeaders", "host"),
        )
    )
    nothing = hashlib.sha256(b"").hexdigest()
    canonical = f"POST\n/\n{query}\nhost:{_HOST}\n\nhost\n{nothing}"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{session.secret_access_key}".encode()
    for part in (day, region, "bedrock", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    url = f"{_HOST}/?{query}&X-Amz-Signature={signature}&Version=1"
    return Secret(b"bedrock-api-key-" + base64.b64encode(url.encode()))


def _session(answer: TokenAnswer) -> Session:
    """The credentials of an answer in XML, of which only four elements are of interest: no parser reads the rest."""
    code = _ERROR.search(answer.body)
    if answer.status in {400, 403} and code is not None:
        message = f"{WHO} refused our workload token ({code[1].decode()}); check the role's trust policy and the clocks"
        raise ExchangeFault(ExchangeState.REFUSED, message)
    check_status(answer, WHO)
    found = {}
    for name in _FIELDS:
        element = re.search(rf"<{name}>\s*([!-;=-~]{{1,8192}})\s*</{name}>".encode(), answer.body)
        if element is None:
            raise malformed(WHO, "gave no session")
        found[name] = element[1].decode("ascii")
    try:
        end = datetime.fromisoformat(found["Expiration"])
    except ValueError:
        end = None
    if end is not None and end.tzinfo is None:
        end = end.replace(tzinfo=UTC)
    return Session(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], end)
