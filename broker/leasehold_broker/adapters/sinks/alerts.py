"""Places that tell humans: Slack or what takes its messages, PagerDuty or what takes its events, a signed webhook.

Owns what each answer means: taken, try again, or never. A message that the place will never take is given up, so that
it holds up no other; a place whose address or key is wrong is waited for until somebody mends it.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from leasehold_broker.adapters.private_files import NotPrivateError, read_private
from leasehold_broker.adapters.sinks.http_post import HttpPoster, HttpTarget
from leasehold_broker.adapters.sinks.webhook import KEY_BYTES_MAX, file_key
from leasehold_broker.adapters.standard_webhooks import signature
from leasehold_broker.domain.alerts import Alert
from leasehold_broker.ports.alert_endpoint import AlertNotSentError, AlertRejectedError
from leasehold_broker.ports.event_sink import SinkFailedError
from leasehold_broker.wire.alert_bodies import pagerduty_body, slack_body, webhook_body

NEVER = frozenset({400, 413, 422})
"""Answers that say that the message itself is wrong."""
_JSON = {"Content-Type": "application/json", "User-Agent": "leasehold"}


class _Posting:
    """What the three have in common."""

    def __init__(self, name: str, target: HttpTarget, source: str) -> None:
        """Post there.

        Args:
            name: of the endpoint.
            target: where.
            source: names the collector.

        Raises:
            OSError: roots of the target cannot be read.
        """
        self._poster = HttpPoster(target, name)
        self._source = source

    async def close(self) -> None:
        """As the port says."""
        await self._poster.close()

    async def _post(self, body: bytes, more: dict[str, str] | None = None) -> None:
        try:
            answer = await self._poster.ask(body, _JSON | (more or {}))
        except SinkFailedError as failed:
            raise AlertNotSentError(str(failed)) from None
        if answer.status in NEVER:
            message = f"it answered {answer.status} and will not take this alert"
            raise AlertRejectedError(message)
        if not 200 <= answer.status < 300:
            message = f"it answered {answer.status}"
            raise AlertNotSentError(message, answer.retry_after_seconds)


class SlackEndpoint(_Posting):
    """Implements `AlertEndpoint` for an incoming webhook."""

    async def send(self, alert: Alert) -> None:
        """As the port says."""
        await self._post(slack_body(alert, self._source))


class PagerDutyEndpoint(_Posting):
    """Implements `AlertEndpoint` for the Events API v2; the routing key is read for each alert."""

    def __init__(self, name: str, target: HttpTarget, source: str, routing_key_file: Path) -> None:
        """Post there, with the key in this file."""
        super().__init__(name, target, source)
        self._routing_key_file = routing_key_file

    async def send(self, alert: Alert) -> None:
        """As the port says."""
        try:
            key = read_private(self._routing_key_file, KEY_BYTES_MAX).decode().strip()
        except (OSError, NotPrivateError, UnicodeDecodeError) as error:
            message = f"the routing key {self._routing_key_file} cannot be read: {type(error).__name__}"
            raise AlertNotSentError(message) from None
        await self._post(pagerduty_body(alert, self._source, key))


class WebhookEndpoint(_Posting):
    """Implements `AlertEndpoint`: one POST an alert, signed as Standard Webhooks has it where there is a key."""

    def __init__(
        self, name: str, target: HttpTarget, source: str, key_file: Path | None, wall_seconds: Callable[[], int]
    ) -> None:
        """Post there; sign with the key in this file, at this Unix time."""
        super().__init__(name, target, source)
        self._key_file = key_file
        self._wall_seconds = wall_seconds

    async def send(self, alert: Alert) -> None:
        """As the port says. An alert that is sent again has the same id."""
        body = webhook_body(alert, self._source)
        name = f"alert_{hashlib.sha256(f'{alert.place} {alert.key}'.encode()).hexdigest()[:24]}"
        headers = {"webhook-id": name}
        if self._key_file is not None:
            seconds = str(self._wall_seconds())
            try:
                key = file_key(self._key_file)
            except SinkFailedError as failed:
                raise AlertNotSentError(str(failed)) from None
            headers |= {"webhook-timestamp": seconds, "webhook-signature": signature(key, name, seconds, body)}
        await self._post(body, headers)
