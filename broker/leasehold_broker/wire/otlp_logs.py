"""Audit records as OTLP logs (JSON form of opentelemetry-proto 1.x), for POST /v1/logs. Owns the mapping.

The body is the event's own JSON text; what is searched by stands in attributes. 64-bit integers are strings and bytes
are not used, as the JSON form of protobuf asks.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.wire.event_body import event_columns

_INFO, _WARN = 9, 13
_NS_PER_MS = 1_000_000


def otlp_logs(records: Sequence[StoredRecord], service: str) -> bytes:
    """An ExportLogsServiceRequest; records without a body are left out.

    Args:
        records: in the order of the log.
        service: service.name of the resource: the collector's own name.
    """
    logs = [_log(stored) for stored in records if stored.record.body]
    scope = {"scope": {"name": "leasehold.audit"}, "logRecords": logs}
    resource = {"attributes": [_text("service.name", service), _text("service.namespace", "leasehold")]}
    return msgspec.json.encode({"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]})


def _log(stored: StoredRecord) -> dict[str, Any]:
    record = stored.record
    columns = event_columns(record.body)
    severity, text = (_INFO, "INFO") if columns.outcome == "allowed" else (_WARN, "WARN")
    named = (
        ("leasehold.stream", record.stream),
        ("leasehold.epoch", record.epoch),
        ("leasehold.digest", record.digest.hex()),
        ("leasehold.outcome", columns.outcome),
        ("leasehold.lease", columns.lease),
        ("leasehold.issuer", columns.issuer),
        ("leasehold.subject", columns.subject),
    )
    return {
        "timeUnixNano": str(columns.wall_ms * _NS_PER_MS),
        "observedTimeUnixNano": str(stored.receive_wall_ms * _NS_PER_MS),
        "severityNumber": severity,
        "severityText": text,
        "eventName": f"leasehold.{columns.type}",
        "body": {"stringValue": record.body.decode()},
        "attributes": [
            *(_text(name, value) for name, value in named if value),
            _integer("leasehold.position", stored.position),
            _integer("leasehold.sequence", record.sequence),
        ],
    }


def _text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def _integer(key: str, value: int) -> dict[str, Any]:
    return {"key": key, "value": {"intValue": str(value)}}
