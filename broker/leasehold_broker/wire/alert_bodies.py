"""Alerts as the JSON of places that tell humans. Owns three shapes; what a caller wrote stays plain text in each.

Slack: an incoming webhook's message (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks), in
plain_text objects alone, so that no name becomes a mention or a link. PagerDuty: the Events API v2
(https://developer.pagerduty.com/docs/events-api-v2-overview). Webhook: an envelope as Standard Webhooks asks for.
"""

from typing import Any

import msgspec

from leasehold_broker.domain.alerts import Alert
from leasehold_broker.wire.iso_time import iso_time

Json = dict[str, Any]

HEADER_CHARACTERS_MAX = 150
SUMMARY_CHARACTERS_MAX = 1024


def slack_body(alert: Alert, source: str) -> bytes:
    """One message. `source` names the collector."""
    word = "RESOLVED" if alert.resolves else alert.severity.value.upper()
    lines = [f"{name}: {text}" for name, text in _said(alert)]
    where = f"{source} | {alert.type} | {alert.place} | {iso_time(alert.wall_ms)}"
    blocks: list[Json] = [
        {"type": "header", "text": _plain(f"{word}: {alert.title}", HEADER_CHARACTERS_MAX)},
        *({"type": "section", "text": _plain(line, 2900)} for line in lines),
        {"type": "context", "elements": [_plain(where, 1900)]},
    ]
    fallback = f"{word}: {alert.title}"
    for letter, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):  # as Slack asks: nothing else is markup
        fallback = fallback.replace(letter, entity)
    return msgspec.json.encode({"text": fallback, "mrkdwn": False, "blocks": blocks})


def pagerduty_body(alert: Alert, source: str, routing_key: str) -> bytes:
    """One trigger or resolve event. `source` names the collector."""
    event: Json = {
        "routing_key": routing_key,
        "event_action": "resolve" if alert.resolves else "trigger",
        "dedup_key": alert.key,
        "client": "leasehold",
    }
    if not alert.resolves:
        event["payload"] = {
            "summary": alert.title[:SUMMARY_CHARACTERS_MAX],
            "source": source,
            "severity": alert.severity.value,
            "timestamp": iso_time(alert.wall_ms),
            "component": "leasehold",
            "class": alert.type,
            "custom_details": dict(_said(alert)) | {"place": alert.place},
        }
    return msgspec.json.encode(event)


def webhook_body(alert: Alert, source: str) -> bytes:
    """One event; https://github.com/standard-webhooks/standard-webhooks, "Payload structure"."""
    data: Json = {
        "key": alert.key,
        "severity": alert.severity.value,
        "state": "resolved" if alert.resolves else "open",
        "title": alert.title,
        "event_type": alert.type,
        "place": alert.place,
        "source": source,
        **dict(_said(alert)),
    }
    return msgspec.json.encode({"type": "leasehold.alert", "timestamp": iso_time(alert.wall_ms), "data": data})


def _said(alert: Alert) -> list[tuple[str, str]]:
    said = [
        ("seen", alert.seen),
        ("usual", alert.usual),
        ("advice", alert.advice),
        ("subject", alert.subject),
        ("lease", alert.lease),
        ("repeated", str(alert.repeated) if alert.repeated else ""),
    ]
    return [(name, text) for name, text in said if text]


def _plain(text: str, characters_max: int) -> Json:
    return {"type": "plain_text", "text": text[:characters_max], "emoji": False}
