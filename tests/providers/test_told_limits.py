"""What errors say of the key they were asked with: each vendor's documented body, and what an agent puts into one."""

import json

import pytest

from leasehold_broker.ports.provider import ToldLimit
from leasehold_broker.providers.told_limits import told_limit

OPENAI_QUOTA = {
    "error": {
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }
}
OPENAI_RATE = {
    "error": {"message": "Rate limit reached", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
}
OPENAI_SPEND = {"error": {"message": "m", "type": "t", "param": None, "code": "project_spend_limit_exceeded"}}
ANTHROPIC_CREDIT = {
    "type": "error",
    "error": {
        "type": "invalid_request_error",
        "message": "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.",
    },
}
ANTHROPIC_USAGE = {
    "type": "error",
    "error": {
        "type": "invalid_request_error",
        "message": "You have reached your specified API usage limits. You will regain access on 2026-12-01.",
    },
}
ANTHROPIC_BILLING = {"type": "error", "error": {"type": "billing_error", "message": "m"}}
ANTHROPIC_RATE = {"type": "error", "error": {"type": "rate_limit_error", "message": "m"}}


def gemini(*quotas: str, delay: str = "") -> dict:
    """RESOURCE_EXHAUSTED, with its details."""
    details: list[dict] = [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaMetric": "m", "quotaId": quota} for quota in quotas],
        }
    ]
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": details}}


MINUTE, DAY = "GenerateRequestsPerMinutePerProjectPerModel", "GenerateRequestsPerDayPerProjectPerModel-FreeTier"


@pytest.mark.parametrize(
    ("status", "headers", "body", "wait", "exhausted"),
    [
        (429, {}, OPENAI_QUOTA, None, True),
        (429, {"retry-after": "3"}, OPENAI_RATE, 3.0, False),
        (429, {"retry-after-ms": "1250", "retry-after": "2"}, OPENAI_RATE, 1.25, False),
        (429, {}, OPENAI_SPEND, None, True),
        (400, {}, ANTHROPIC_CREDIT, None, True),
        (400, {}, ANTHROPIC_USAGE, None, True),
        (402, {}, ANTHROPIC_BILLING, None, True),
        (429, {"retry-after": "42"}, ANTHROPIC_RATE, 42.0, False),
        (429, {}, gemini(MINUTE, delay="39s"), 39.0, False),
        (429, {}, gemini(MINUTE, delay="39.837462s"), 39.0, False),
        (429, {}, [gemini(DAY, delay="5s")], 5.0, True),
        (429, {}, gemini(DAY, MINUTE), None, True),
        (402, {}, {"error": {"code": 402, "message": "Insufficient credits"}}, None, True),
        (402, {}, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}, None, True),
        (402, {}, {"message": "billing limit reached"}, None, True),
        (400, {"x-amzn-errortype": "ServiceQuotaExceededException:http://"}, {"message": "m"}, None, True),
        (429, {"x-amzn-errortype": "ThrottlingException"}, {"message": "Too many requests"}, None, False),
        (
            429,
            {"retry-after": "Wed, 25 Nov 2026 19:00:30 GMT", "date": "Wed, 25 Nov 2026 19:00:00 GMT"},
            OPENAI_RATE,
            30.0,
            False,
        ),
    ],
)
def test_each_vendor_s_words(status, headers, body, wait, exhausted):
    """By its codes; how long by its headers, or by its details."""
    assert told_limit(status, headers, json.dumps(body).encode()) == ToldLimit(wait, exhausted=exhausted)


@pytest.mark.parametrize("status", [200, 401, 404, 500, 529])
def test_other_statuses_say_nothing(status):
    """Nor does a code in one of them."""
    assert told_limit(status, {"retry-after": "3"}, json.dumps(OPENAI_QUOTA).encode()) == ToldLimit(
        None, exhausted=False
    )


@pytest.mark.parametrize(
    "message",
    [
        "messages.0.content: Your credit balance is too low",
        "Invalid value: 'insufficient_quota'",
        " Your credit balance is too low",
        '{"error": {"code": "insufficient_quota"}}',
    ],
)
def test_what_an_agent_asked_is_no_word_of_the_provider(message):
    """Errors repeat requests in their sentences; a neighbour's key must not rest for that."""
    body = {"error": {"type": "invalid_request_error", "message": message, "param": "insufficient_quota"}}
    assert not told_limit(400, {}, json.dumps(body).encode()).exhausted


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"7",
        b'"insufficient_quota"',
        b'{"error": "insufficient_quota"}',
        b'{"error": {"code": ["insufficient_quota"], "details": 7}}',
        b'{"error": {"details": [7, {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [7]}]}}',
        b'{"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "-5s"}]}}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_a_body_that_is_none_says_nothing(body):
    """Hostile or broken: nothing is read, nothing breaks."""
    assert told_limit(429, {}, body) == ToldLimit(None, exhausted=False)


def google(code: int, reason: str, message: str = "m", kind: str = "google.rpc.ErrorInfo") -> bytes:
    """An error of a Google API with a reason."""
    detail = {"@type": f"type.googleapis.com/{kind}", "reason": reason, "domain": "googleapis.com"}
    return json.dumps({"error": {"code": code, "message": message, "details": [detail]}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (400, google(400, "API_KEY_INVALID", "API key not valid. Please pass a valid API key."), True),
        (403, google(403, "CONSUMER_SUSPENDED"), True),
        (403, b'{"error":{"code":403,"message":"Your API key was reported as leaked. Please use another."}}', True),
        (400, b'{"error":{"code":400,"message":"Your API key was reported as leaked."}}', False),
        (
            400,
            b'{"error":{"code":400,"message":"User location is not supported","status":"FAILED_PRECONDITION"}}',
            False,
        ),
        (403, google(403, "API_KEY_SERVICE_BLOCKED"), False),
        (403, google(403, "SERVICE_DISABLED"), False),
        (400, google(400, "API_KEY_INVALID", kind="google.rpc.BadRequest"), False),
        (400, b'{"error":{"code":400,"message":"contents: API_KEY_INVALID"}}', False),
        (400, b'{"error":{"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":["x"]}]}}', False),
        (200, google(400, "API_KEY_INVALID"), False),
        (403, b'{"Message":"Authentication failed: Please make sure your API Key is valid."}', True),
        (403, b'{"message":"Authentication failed: Please make sure your API Key is valid."}', False),
        (403, b'{"Message":"User is not authorized to perform: bedrock:InvokeModel"}', False),
        (400, b'{"Message":"Authentication failed: Please make sure your API Key is valid."}', False),
    ],
)
def test_a_key_that_google_or_bedrock_calls_none(status, body, refused):
    """By its reason alone: a region, a restriction, a missing permission and what an agent wrote are not the key."""
    assert told_limit(status, {}, body) == ToldLimit(None, exhausted=False, refused=refused)
