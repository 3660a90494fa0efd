"""Templates and static files, read once. Owns that whatever is not ours is shown as text."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from leasehold.v1 import key_service_pb2 as key
from leasehold.v1 import revocation_service_pb2 as revocation

BODY_CHARACTERS_MAX = 4000
MICRO = 1_000_000
STATIC = {
    "htmx.min.js": "text/javascript",
    "hx-sse.min.js": "text/javascript",
    "pico.min.css": "text/css",
    "console.css": "text/css",
}


class Rendering:
    """All pages."""

    def __init__(self) -> None:
        """Read the templates."""
        self._environment = Environment(
            loader=PackageLoader("leasehold_broker.console"),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            finalize=shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "when": when,
            "selects": selects,
            "amount": amount,
            "cause": lambda number: _word(revocation.RevocationCause, "REVOCATION_CAUSE_", number),
            "rotation_state": lambda number: _word(key.RotationState, "ROTATION_STATE_", number),
            "rotation_trigger": lambda number: _word(key.RotationTrigger, "ROTATION_TRIGGER_", number),
        }
        folder = files("leasehold_broker.console").joinpath("static")
        self.static: Mapping[str, tuple[bytes, str]] = {
            name: (folder.joinpath(name).read_bytes(), kind) for name, kind in STATIC.items()
        }

    def page(self, name: str, **shown: Any) -> str:
        """A page, or a part of one."""
        return self._environment.get_template(name).render(**shown)


def shown(value: Any) -> Any:
    """Text without what a browser obeys or cannot show: controls, directions of writing, halves of characters."""
    if type(value) is not str or value.isprintable():
        return value
    return "".join(sign if sign.isprintable() or sign == "\n" else f"\\u{ord(sign):04x}" for sign in value)


def when(stamp: Any) -> str:
    """A time of the proto, to the second."""
    moment = stamp if isinstance(stamp, datetime) else stamp.ToDatetime(UTC)
    return str(moment.isoformat(timespec="seconds").replace("+00:00", "Z"))


def amount(value: int, metric: str) -> str:
    """An amount in words: micro-USD as dollars, everything else as it is."""
    return f"{value // MICRO:,}.{value % MICRO:06d} USD" if metric.endswith("micro_usd") else f"{value:,}"


def selects(entry: Any) -> str:
    """What a revocation matches, in words."""
    if entry.lifts_epoch:
        return f"lifts revocations/{entry.lifts_epoch}"
    return selector_words(entry.selector)


def selector_words(selector: Any) -> str:
    """A selector in words."""
    kind = selector.WhichOneof("selector")
    if kind is None or kind == "everything":
        return "everything"
    if kind == "subject":
        subject = selector.subject
        return f"subject {subject.subject}" + (f" of {subject.issuer}" if subject.issuer else "")
    if kind == "label":
        return f"label {selector.label.name}={selector.label.value}"
    return f"{kind} {getattr(selector, kind)}"


def event_row(stored: Any) -> dict[str, Any]:
    """What is shown of an audit event. A sidecar may have written anything at all into it."""
    record = stored.record
    try:
        body = json.loads(record.body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        body = {"type": "(not an event)" if record.body else "(content dropped)"}
    subject = body.get("subject")
    known = {"type", "outcome", "reason", "subject", "lease", "wall_ms"}
    rest = {name: value for name, value in body.items() if name not in known}
    return {
        "position": stored.position,
        "received": when(stored.receive_time),
        "stream": record.stream,
        "sequence": record.sequence,
        "type": str(body["type"]) if "type" in body else "",
        "outcome": str(body.get("outcome", "")),
        "reason": str(body.get("reason", "")),
        "subject": str(subject.get("subject", "")) if isinstance(subject, dict) else "",
        "lease": str(body.get("lease", "")),
        "rest": json.dumps(rest, indent=1, ensure_ascii=False, default=str)[:BODY_CHARACTERS_MAX] if rest else "",
    }


def _word(kind: Any, prefix: str, number: int) -> str:
    name = kind.Name(number) if number in kind.values() else str(number)
    return str(name).removeprefix(prefix).lower().replace("_", " ")
