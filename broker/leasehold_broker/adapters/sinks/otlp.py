"""Batches to an OpenTelemetry collector: OTLP over HTTP, JSON form, by plain request."""

from collections.abc import Callable, Sequence

import msgspec

from leasehold_broker.adapters.sinks.http_post import HttpPoster, HttpTarget
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.wire.otlp_logs import otlp_logs


class _Partial(msgspec.Struct, rename="camel"):
    rejected_log_records: int | str = 0
    error_message: str = ""


class _Answer(msgspec.Struct, rename="camel"):
    partial_success: _Partial = msgspec.field(default_factory=_Partial)


class OtlpSink:
    """Implements `EventSink`."""

    def __init__(self, name: str, target: HttpTarget, service: str, rejected: Callable[[int, str], None]) -> None:
        """Post to this URL (with /v1/logs).

        Args:
            name: of the sink.
            target: where.
            service: service.name of the resource.
            rejected: told how many records of a batch were rejected for good, and why. OTLP forbids sending them again.

        Raises:
            OSError: roots of the target cannot be read.
        """
        self._poster = HttpPoster(target, name)
        self._service = service
        self._rejected = rejected

    async def deliver(self, records: Sequence[StoredRecord]) -> None:
        """As the port says."""
        headers = {"Content-Type": "application/json", "User-Agent": "leasehold"}
        data = await self._poster.post(otlp_logs(records, self._service), headers)
        try:
            answer = msgspec.json.decode(data or b"{}", type=_Answer).partial_success
            count = int(answer.rejected_log_records)
        except (ValueError, RecursionError):
            return  # a 2xx without a readable body took all
        if count:
            self._rejected(count, answer.error_message[:200])

    async def close(self) -> None:
        """As the port says."""
        await self._poster.close()
