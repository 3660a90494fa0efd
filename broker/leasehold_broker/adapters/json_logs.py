"""Structured logs: one JSON object a line on standard error. Owns the redaction that catches what discipline missed.

Libraries' own warnings and the text of faults that nobody caught go the same way: nothing of this process writes a line
that was not redacted. A library's debug output is never let through: it prints headers.
"""

import json
import logging
import sys
import threading
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import structlog

from leasehold_broker.domain.key_shapes import REDACTED, SECRET_FIELDS, without_secrets

DEPTH_MAX = 8
"""Nested values deeper than this are not logged."""


def redact(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace anything shaped like a token or a vendor's key in one entry, at any depth, also in faults and objects."""
    for name in list(entry):
        entry[name] = REDACTED if name.lower() in SECRET_FIELDS else _redacted(entry[name], DEPTH_MAX)
    return entry


def _redacted(value: Any, depth: int) -> Any:
    """`value` as JSON knows it, without secrets."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _redacted_inside(value, depth - 1) if depth else "[too deep]"
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode("latin-1")
    return without_secrets(value if isinstance(value, str) else repr(value))


def _redacted_inside(values: Any, depth: int) -> Any:
    if not isinstance(values, Mapping):
        return [_redacted(item, depth) for item in values]
    return {
        without_secrets(str(name)): REDACTED if str(name).lower() in SECRET_FIELDS else _redacted(item, depth)
        for name, item in values.items()
    }


def set_up_logging(level: str, process: str) -> None:
    """Send all logs of this process to standard error.

    Args:
        level: debug, info, warning or error.
        process: "sidecar" or "collector" with its name, bound to every line.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            redact,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Foreign(process))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


class _Foreign(logging.Formatter):
    """A library's log record in the shape of our own lines."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object, redacted."""
        line = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
        }
        if record.exc_info:
            line["fault"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(_redacted(line, DEPTH_MAX), sort_keys=True)


def _uncaught(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("leasehold.uncaught").critical("uncaught", exc_info=(kind, fault, trace))


def _uncaught_in_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None:
        _uncaught(told.exc_type, told.exc_value, told.exc_traceback)
