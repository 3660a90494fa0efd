"""What the exchanges share: bodies with an assertion in them, and the strict reading of OAuth answers.

Shapes: RFC 6749 sections 5.1 and 5.2. The one place of this folder where a secret is in the clear. Refuses to show what
an endpoint said beyond its error code.
"""

import json
import re
from collections.abc import Mapping
from urllib.parse import urlencode

from leasehold_broker.domain.retry_after import retry_after_seconds
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.token_exchange import (
    ANSWER_BYTES_MAX,
    ExchangeFault,
    ExchangeState,
    Minted,
    TokenAnswer,
    TokenAsk,
)

JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type
EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
BEARER_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFE_SECONDS_MAX = 12 * 3600
_CODE = re.compile(r"[A-Za-z_]{1,64}", re.ASCII)
_FORM = ("content-type", "application/x-www-form-urlencoded")
_JSON = ("content-type", "application/json")
_ACCEPT = ("accept", "application/json")

Fields = Mapping[str, str | int | Secret | list[str]]


def json_ask(
    origin: str, path: str, fields: Fields, *headers: tuple[str, str], bearer: Secret | None = None
) -> TokenAsk:
    """A JSON request; empty strings are left out."""
    body = json.dumps(_plain(fields), separators=(",", ":")).encode()
    return TokenAsk(origin, path, (_JSON, _ACCEPT, *headers), body, bearer)


def form_ask(origin: str, path: str, fields: Fields) -> TokenAsk:
    """A form request; empty strings are left out."""
    return TokenAsk(origin, path, (_FORM, _ACCEPT), urlencode(_plain(fields)).encode())


def oauth_token(answer: TokenAnswer, who: str) -> Minted:
    """The token of an OAuth answer.

    Raises:
        ExchangeFault: an error, or an answer that is not one.
    """
    fields = answer_fields(answer, who)
    kind, token, life = fields.get("token_type"), fields.get("access_token"), fields.get("expires_in")
    if kind is not None and str(kind).lower() != "bearer":
        raise malformed(who, "gave a token that is no bearer token")
    return minted(token, life, who)


def minted(token: object, life: object, who: str) -> Minted:
    """A token that was checked.

    Raises:
        ExchangeFault: MALFORMED.
    """
    if isinstance(life, str) and life.isascii() and life.isdigit() and len(life) < 8:
        life = int(life)
    if isinstance(life, bool) or not isinstance(life, int | float) or not 1 <= life <= 10**7:
        raise malformed(who, "gave a token without a usable life")
    try:
        if not isinstance(token, str) or len(token) > ANSWER_BYTES_MAX:
            raise malformed(who, "gave no token")
        return Minted(Secret(token.encode("ascii")), min(int(life), LIFE_SECONDS_MAX))
    except ValueError:
        raise malformed(who, "gave no usable token") from None


def answer_fields(answer: TokenAnswer, who: str) -> Mapping[str, object]:
    """The members of a JSON answer.

    Raises:
        ExchangeFault: an error status, or no JSON object.
    """
    check_status(answer, who)
    try:
        fields = json.loads(answer.body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise malformed(who, "did not answer with a JSON object")
    return fields


def check_status(answer: TokenAnswer, who: str) -> None:
    """Raise what an error status means."""
    if answer.status == 200:
        return
    after = retry_after_seconds(answer.headers.get("retry-after", ""), answer.headers.get("date", ""))
    if answer.status == 429:
        raise ExchangeFault(ExchangeState.RATE_LIMITED, f"{who} limits our rate", after)
    if answer.status in {400, 401, 403, 404}:
        message = f"{who} refused our workload token ({_error_code(answer)}); check the federation rule and the clocks"
        raise ExchangeFault(ExchangeState.REFUSED, message)
    if 300 <= answer.status < 400:
        raise malformed(who, "redirects, which is not followed")
    raise ExchangeFault(ExchangeState.FAILING, f"{who} answers with a fault of its own (HTTP {answer.status})", after)


def malformed(who: str, what: str) -> ExchangeFault:
    """An answer that is not as documented."""
    return ExchangeFault(ExchangeState.MALFORMED, f"{who} {what}")


def _error_code(answer: TokenAnswer) -> str:
    """The error's code, when it looks like one: its description may echo the assertion."""
    try:
        fields = json.loads(answer.body)
    except (ValueError, RecursionError):
        return f"HTTP {answer.status}"
    error = fields.get("error") if isinstance(fields, dict) else None
    if isinstance(error, dict):
        error = error.get("type") or error.get("status") or error.get("code")
    known = isinstance(error, str) and _CODE.fullmatch(error)
    return f"{error}, HTTP {answer.status}" if known else f"HTTP {answer.status}"


def _plain(fields: Fields) -> dict[str, str | int | list[str]]:
    return {
        name: value.reveal().decode("ascii") if isinstance(value, Secret) else value
        for name, value in fields.items()
        if not isinstance(value, str) or value
    }
