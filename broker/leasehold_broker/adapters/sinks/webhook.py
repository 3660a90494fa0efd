"""Batches as JSON to a URL, signed as Standard Webhooks (https://www.standardwebhooks.com) has it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from leasehold_broker.adapters.private_files import NotPrivateError, read_private
from leasehold_broker.adapters.sinks.encoding import Format, encode
from leasehold_broker.adapters.sinks.http_post import HttpPoster, HttpTarget
from leasehold_broker.adapters.standard_webhooks import signature, signing_key
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.ports.event_sink import SinkFailedError

KEY_BYTES_MAX = 4096


class WebhookSink:
    """Implements `EventSink`: one POST a batch, a JSON array of events."""

    def __init__(
        self, name: str, target: HttpTarget, form: Format, key_file: Path | None, wall_seconds: Callable[[], int]
    ) -> None:
        """Post there.

        Args:
            name: of the sink.
            target: where.
            form: of each event.
            key_file: holds the HMAC-SHA256 key of the signature, as text or as "whsec_" and base64; read for each
                batch, so that it can be rotated. None: not signed.
            wall_seconds: Unix time, for the signature.

        Raises:
            OSError: roots of the target cannot be read.
        """
        self._poster = HttpPoster(target, name)
        self._form = form
        self._key_file = key_file
        self._wall_seconds = wall_seconds

    async def deliver(self, records: Sequence[StoredRecord]) -> None:
        """As the port says: a 2xx takes the batch. A batch that is sent again has the same id."""
        body = b"[" + b",".join(encode(stored, self._form) for stored in records) + b"]"
        first, last = records[0], records[-1]
        name = f"msg_{first.position}-{last.position}-{last.record.digest.hex()[:16]}"
        headers = {"Content-Type": "application/json", "User-Agent": "leasehold", "webhook-id": name}
        if self._key_file is not None:
            seconds = str(self._wall_seconds())
            headers |= {
                "webhook-timestamp": seconds,
                "webhook-signature": signature(file_key(self._key_file), name, seconds, body),
            }
        await self._poster.post(body, headers)

    async def close(self) -> None:
        """As the port says."""
        await self._poster.close()


def file_key(path: Path) -> bytes:
    """The key in a file, as text or as "whsec_" and base64.

    Raises:
        SinkFailedError: it cannot be read.
    """
    try:
        return signing_key(read_private(path, KEY_BYTES_MAX).strip())
    except (OSError, NotPrivateError, ValueError) as error:
        message = f"the signing key {path} cannot be read: {type(error).__name__}"
        raise SinkFailedError(message) from None
