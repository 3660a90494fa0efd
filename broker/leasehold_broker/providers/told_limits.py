"""What a provider's error says of its key: wait so long, its account has nothing left, or it is no good. Pure.

One reading for all dialects: their codes do not collide. Only codes are read, and the beginnings of four sentences,
which have no code: an agent chooses the request, and errors repeat what was asked, but not there. Most say with 401
that a key is no good; Google answers 400 or 403, as to many other things, with a reason.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from leasehold_broker.domain.retry_after import RETRY_SECONDS_MAX, retry_after_seconds
from leasehold_broker.ports.provider import ToldLimit

_STATUSES: Final = frozenset({400, 402, 403, 429})
_CODES: Final = frozenset(
    {
        # OpenAI and hosts of its dialect
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "insufficient_balance",
        # Anthropic
        "billing_error",
        # Bedrock
        "ServiceQuotaExceededException",
    }
)
_SENTENCES: Final = ("Your credit balance is too low", "You have reached your specified API usage limits")
_REFUSALS: Final = frozenset({"API_KEY_INVALID", "CONSUMER_INVALID", "CONSUMER_SUSPENDED"})
_LEAKED: Final = "Your API key was reported as leaked"
_NOT_BEDROCKS: Final = "Authentication failed: Please make sure your API Key is valid"
_ERROR_INFO: Final = "type.googleapis.com/google.rpc.ErrorInfo"
_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"
_QUOTA_FAILURE: Final = "type.googleapis.com/google.rpc.QuotaFailure"
_DELAY: Final = re.compile(r"(\d{1,6})(?:\.\d{1,9})?s", re.ASCII)

Fields = Mapping[str, object]


def told_limit(status: int, headers: Mapping[str, str], body: bytes) -> ToldLimit:
    """What an error says.

    Args:
        status: of the answer.
        headers: of the answer, names in lower case.
        body: of the answer, whole; b"" when it was too long to be kept.
    """
    if status not in _STATUSES:
        return ToldLimit(None, exhausted=False)
    error = _error(body)
    details = [each for each in _list(error.get("details")) if isinstance(each, Mapping)]
    wait = _wait(headers, details) if status == 429 else None
    kind = headers.get("x-amzn-errortype", "").partition(":")[0]
    codes = {kind, *(code for name in ("code", "type") if isinstance(code := error.get(name), str))}
    message = error.get("message")
    said = isinstance(message, str) and message.startswith(_SENTENCES)
    exhausted = status == 402 or bool(codes & _CODES) or said or any(_daily(details))
    leaked = status == 403 and isinstance(message, str) and message.startswith(_LEAKED)
    # Before the model is asked for, and in a member of another name than Bedrock's own errors.
    other = error.get("Message")
    none = status == 403 and isinstance(other, str) and other.startswith(_NOT_BEDROCKS)
    return ToldLimit(wait, exhausted=exhausted, refused=leaked or none or any(_refusals(details)))


def _wait(headers: Mapping[str, str], details: Iterable[Fields]) -> float | None:
    milliseconds = headers.get("retry-after-ms", "")
    if milliseconds.isascii() and milliseconds.isdigit():
        return min(int(milliseconds[:11]) / 1000, float(RETRY_SECONDS_MAX))
    wait = retry_after_seconds(headers.get("retry-after", ""), headers.get("date", ""))
    if wait is not None:
        return wait
    for detail in details:
        delay = detail.get("retryDelay")
        found = _DELAY.fullmatch(delay) if detail.get("@type") == _RETRY_INFO and isinstance(delay, str) else None
        if found is not None:
            return min(float(found[1]), float(RETRY_SECONDS_MAX))
    return None


def _refusals(details: Iterable[Fields]) -> Iterable[bool]:
    """Of Google's reasons: the key is none, is deleted or expired, or its project is suspended."""
    for detail in details:
        reason = detail.get("reason") if detail.get("@type") == _ERROR_INFO else None
        yield isinstance(reason, str) and reason in _REFUSALS


def _daily(details: Iterable[Fields]) -> Iterable[bool]:
    """Of Google's RESOURCE_EXHAUSTED: a quota of a day is used up for today, one of a minute is back in a minute."""
    for detail in details:
        if detail.get("@type") == _QUOTA_FAILURE:
            for violation in _list(detail.get("violations")):
                name = violation.get("quotaId") if isinstance(violation, Mapping) else None
                yield isinstance(name, str) and "PerDay" in name


def _error(body: bytes) -> Fields:
    """The object that tells of the error; some hosts put it at the top, one into a list of one."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    if isinstance(fields, list) and fields:
        fields = fields[0]
    if not isinstance(fields, Mapping):
        return {}
    error = fields.get("error", fields)
    return error if isinstance(error, Mapping) else fields


def _list(found: object) -> list[object]:
    return found if isinstance(found, list) else []
