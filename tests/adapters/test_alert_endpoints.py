"""Endpoints for alerts against real HTTP servers: their documented shapes, their answers, their secrets."""

import base64
import hmac
import json
from dataclasses import replace

import pagerduty
import pytest
from slack_sdk.models.blocks import Block
from tests.fakes.receivers import HttpReceiver

from leasehold_broker.adapters.sinks import HttpTarget, PagerDutyEndpoint, SlackEndpoint, WebhookEndpoint
from leasehold_broker.domain.alert_rules import Severity
from leasehold_broker.domain.alerts import Alert
from leasehold_broker.ports.alert_endpoint import AlertNotSentError, AlertRejectedError

ROUTING_KEY = "0123456789abcdef0123456789abcdef"
TROUBLE = Alert(
    key="key.taken_out/prod",
    severity=Severity.CRITICAL,
    resolves=False,
    title="A provider refuses a key; it serves no more: <!channel> & prod",
    seen="it answered 401",
    usual="",
    advice="Look at the key.",
    type="key.taken_out",
    place="sidecar-1/e/7",
    wall_ms=1_795_000_000_123,
    subject="agent-1",
    repeated=3,
)
OVER = replace(TROUBLE, severity=Severity.INFO, resolves=True, title="again", type="key.taken_back", place="s/e/8")


@pytest.fixture
def place():
    """A server that remembers."""
    with HttpReceiver() as receiver:
        yield receiver


def private(folder, name, text):
    """A file for its owner alone."""
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


async def sent(endpoint, *alerts):
    """Send these."""
    try:
        for alert in alerts:
            await endpoint.send(alert)
    finally:
        await endpoint.close()


async def test_pagerduty_gets_what_its_own_client_sends(place, tmp_path):
    """The same body but for our details; a resolve names the same trouble."""
    key_file = private(tmp_path, "routing", ROUTING_KEY + "\n")
    place.answers = [(202, b'{"status":"success","message":"Event processed","dedup_key":"k"}')] * 4
    target = HttpTarget(f"{place.url}/v2/enqueue")
    await sent(PagerDutyEndpoint("pager", target, "collector", key_file), TROUBLE, OVER)
    official = pagerduty.EventsApiV2Client(ROUTING_KEY)
    official._url = place.url
    official.trigger(
        TROUBLE.title,
        "collector",
        dedup_key=TROUBLE.key,
        severity="critical",
        custom_details={
            "seen": TROUBLE.seen,
            "advice": TROUBLE.advice,
            "subject": "agent-1",
            "repeated": "3",
            "place": TROUBLE.place,
        },
        payload={"timestamp": "2026-11-18T11:06:40.123Z", "component": "leasehold", "class": "key.taken_out"},
    )
    official.resolve(TROUBLE.key)
    official.close()
    ours, over, theirs, theirs_over = [json.loads(body) for _, _, body in place.requests]
    assert {path for path, _, _ in place.requests} == {"/v2/enqueue"}
    assert ours.pop("client") == over.pop("client") == "leasehold"
    assert ours == {name: found for name, found in theirs.items() if name not in {"images", "links"}}
    assert over == theirs_over


async def test_slack_gets_blocks_that_its_own_types_accept_and_no_markup(place, tmp_path):
    """Whatever a caller wrote stays plain text: no mention, no link."""
    url_file = private(tmp_path, "slack", f"{place.url}/services/T0/B0/secret\n")
    place.answers = [(200, b"ok")] * 2
    await sent(SlackEndpoint("chat", HttpTarget("", url_file=url_file), "collector"), TROUBLE, OVER)
    assert {path for path, _, _ in place.requests} == {"/services/T0/B0/secret"}
    message, over = [json.loads(body) for _, _, body in place.requests]
    for block in (*Block.parse_all(message["blocks"]), *Block.parse_all(over["blocks"])):
        block.validate_json()
    assert 'mrkdwn": true' not in json.dumps(message)
    assert message["text"].startswith("CRITICAL: A provider refuses a key")
    assert "&lt;!channel&gt; &amp; prod" in message["text"]
    assert {block["text"]["type"] for block in message["blocks"] if "text" in block} == {"plain_text"}
    assert over["text"] == "RESOLVED: again"


async def test_a_webhook_is_signed_and_keeps_its_id(place, tmp_path):
    """As Standard Webhooks has it: sent again, the same alert has the same id, and another one another."""
    key = b"0123456789abcdef0123456789abcdef"
    key_file = private(tmp_path, "key", "whsec_" + base64.b64encode(key).decode())
    bearer = private(tmp_path, "bearer", "token-1")
    endpoint = WebhookEndpoint("hook", HttpTarget(f"{place.url}/in", bearer), "collector", key_file, lambda: 77)
    await sent(endpoint, TROUBLE, TROUBLE, OVER)
    names = [headers["webhook-id"] for _, headers, _ in place.requests]
    assert names[0] == names[1] != names[2]
    _, headers, body = place.requests[0]
    signed = f"{names[0]}.77.".encode() + body
    expected = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["authorization"] == "Bearer token-1"
    told = json.loads(body)
    assert told["type"] == "leasehold.alert"
    assert told["data"]["state"] == "open"
    assert json.loads(place.requests[2][2])["data"]["state"] == "resolved"


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (400, AlertRejectedError),
        (422, AlertRejectedError),
        (403, AlertNotSentError),
        (404, AlertNotSentError),
        (410, AlertNotSentError),
        (429, AlertNotSentError),
        (500, AlertNotSentError),
        (301, AlertNotSentError),
    ],
)
async def test_an_answer_is_taken_later_or_never(place, tmp_path, status, fault):
    """A message that is wrong is given up; a place that is wrong is waited for; no secret is in what is said."""
    url_file = private(tmp_path, "slack", f"{place.url}/services/T0/B0/secret")
    place.answers = [(status, b"invalid_payload")]
    with pytest.raises(fault) as caught:
        await sent(SlackEndpoint("chat", HttpTarget("", url_file=url_file), "collector"), TROUBLE)
    assert str(status) in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(place.requests) == 1


@pytest.mark.parametrize("content", [None, "http://elsewhere.example/x", "not a url", "https://[bad", "\u00e9"])
async def test_an_address_or_key_that_cannot_be_used_is_waited_for_without_its_text(tmp_path, content):
    """A file that is missing, open to others, or not https: said by kind alone."""
    path = tmp_path / "missing" if content is None else private(tmp_path, "url", content)
    with pytest.raises(AlertNotSentError) as caught:
        await sent(SlackEndpoint("chat", HttpTarget("", url_file=path), "collector"), TROUBLE)
    assert content is None or content not in str(caught.value)
    opened = private(tmp_path, "routing", ROUTING_KEY)
    opened.chmod(0o644)
    for endpoint in (
        PagerDutyEndpoint("pager", HttpTarget("http://127.0.0.1:9/"), "collector", opened),
        WebhookEndpoint("hook", HttpTarget("http://127.0.0.1:9/"), "collector", opened, lambda: 1),
    ):
        with pytest.raises(AlertNotSentError) as caught:
            await sent(endpoint, TROUBLE)
        assert ROUTING_KEY not in str(caught.value)


async def test_an_address_that_is_rotated_takes_effect_with_the_next_alert(place, tmp_path):
    """The file is read for each alert, also when the host changes."""
    url_file = private(tmp_path, "slack", f"{place.url}/one")
    endpoint = SlackEndpoint("chat", HttpTarget("", url_file=url_file), "collector")
    with HttpReceiver() as other:
        await endpoint.send(TROUBLE)
        private(tmp_path, "slack", f"{other.url}/two")
        await sent(endpoint, TROUBLE)
        assert [path for path, _, _ in other.requests] == ["/two"]
    assert [path for path, _, _ in place.requests] == ["/one"]


async def test_a_place_that_asks_for_time_gets_it(place, tmp_path):
    """Retry-After in seconds is handed on; anything else in it is not believed."""
    for header, expected in (("7", 7.0), ("soon", None), ("1" * 9, None)):
        place.answers = [(429, b"")]
        place.headers = {"Retry-After": header}
        with pytest.raises(AlertNotSentError) as caught:
            await sent(WebhookEndpoint("hook", HttpTarget(place.url), "collector", None, lambda: 1), TROUBLE)
        assert caught.value.retry_after_seconds == expected
