"""Audit records as syslog messages (RFC 5424). Owns header and structured data; the message is the event's JSON.

Facility 13 (log audit). UTF-8 without a byte order mark, as most receivers expect of JSON.
"""

import re

from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.wire.event_body import event_columns
from leasehold_broker.wire.iso_time import iso_time

FACILITY = 13
_INFORMATIONAL, _WARNING = 6, 4
ENTERPRISE = "leasehold@32473"
"""Structured data id under the number that RFC 5612 keeps for documentation: the project has none of its own."""
_NOT_PRINTABLE = re.compile(r"[^!-~]")


def syslog_message(stored: StoredRecord, hostname: str, message: bytes) -> bytes:
    """One message, without framing.

    Args:
        stored: with a body.
        hostname: of this machine.
        message: what to say: the event's JSON, in one of its forms.
    """
    record = stored.record
    columns = event_columns(record.body)
    priority = FACILITY * 8 + (_INFORMATIONAL if columns.outcome == "allowed" else _WARNING)
    when = iso_time(columns.wall_ms)
    data = " ".join(
        f'{name}="{_escaped(value)}"'
        for name, value in (
            ("position", str(stored.position)),
            ("stream", record.stream),
            ("epoch", record.epoch),
            ("sequence", str(record.sequence)),
            ("digest", record.digest.hex()),
        )
    )
    head = (
        f"<{priority}>1 {when} {_word(hostname, 255)} leasehold {_word(record.stream, 128)} {_word(columns.type, 32)}"
    )
    return f"{head} [{ENTERPRISE} {data}] ".encode() + message


def _word(text: str, length_max: int) -> str:
    return _NOT_PRINTABLE.sub("?", text)[:length_max] or "-"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
