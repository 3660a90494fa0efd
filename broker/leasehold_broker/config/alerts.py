"""The collector's `[[alerts]]`: who is told of trouble. Owns their TOML shape and what is refused."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from leasehold_broker.config.parts import STREAM_NAME, STREAM_NAME_RULE, Part
from leasehold_broker.config.read import PUBLIC, SECRET, ConfigError
from leasehold_broker.config.sinks import TIMEOUT_SECONDS_MAX, checked_file, wrong_url
from leasehold_broker.domain.alert_rules import Severity

ENDPOINTS_MAX = 16
WINDOW_SECONDS_MIN = 1
WINDOW_SECONDS_MAX = 7 * 24 * 3600
PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"


class AlertKind(StrEnum):
    """Whose messages an endpoint takes."""

    SLACK = "slack"
    PAGERDUTY = "pagerduty"
    WEBHOOK = "webhook"


class AlertEndpointPart(Part, frozen=True):
    """One `[[alerts]]` table."""

    name: str
    kind: AlertKind
    url: str = ""
    url_file: str = ""
    key_file: str = ""
    bearer_file: str = ""
    ca_file: str = ""
    severity_min: Severity = Severity.WARNING
    types: tuple[str, ...] = ()
    window_seconds: int = 3600
    timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class AlertsAt:
    """One endpoint, checked; what its kind does not use is empty. Paths are absolute."""

    name: str
    kind: AlertKind
    url: str
    url_file: Path | None
    key_file: Path | None
    bearer_file: Path | None
    ca_file: Path | None
    severity_min: Severity
    types: tuple[str, ...]
    window_seconds: int
    timeout_seconds: float


_MAY_HAVE = {
    AlertKind.SLACK: {"url_file"},
    AlertKind.PAGERDUTY: {"url", "key_file"},
    AlertKind.WEBHOOK: {"url", "url_file", "key_file", "bearer_file"},
}
_PLACES = ("url", "url_file", "key_file", "bearer_file")


def alerts_at(endpoints: tuple[AlertEndpointPart, ...], path: Path) -> tuple[AlertsAt, ...]:
    """All endpoints, checked.

    Raises:
        ConfigError: lists everything that is wrong.
    """
    wrong = [f"alert endpoint {one.name!r}: {what}" for one in endpoints for what in _wrong(one)]
    names = [one.name for one in endpoints]
    wrong += [f"alert endpoint {name!r} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if len(endpoints) > ENDPOINTS_MAX:
        wrong.append(f"at most {ENDPOINTS_MAX} [[alerts]], were {len(endpoints)}")
    if wrong:
        message = f"{path}: " + "; ".join(wrong)
        raise ConfigError(message)
    return tuple(_at(one, path.parent) for one in endpoints)


def _wrong(one: AlertEndpointPart) -> list[str]:
    wrong = []
    if not STREAM_NAME.fullmatch(one.name):
        wrong.append(f"its name {STREAM_NAME_RULE}")
    allowed = _MAY_HAVE[one.kind]
    wrong += [f"a {one.kind} has no {name}" for name in _PLACES if getattr(one, name) and name not in allowed]
    if one.kind is AlertKind.SLACK and not one.url_file:
        wrong.append("a slack needs url_file: the URL of an incoming webhook is a secret")
    if one.kind is AlertKind.PAGERDUTY and not one.key_file:
        wrong.append("a pagerduty needs key_file: a file with the routing key")
    if one.kind is AlertKind.WEBHOOK and bool(one.url) == bool(one.url_file):
        wrong.append("a webhook needs either url or url_file")
    if one.url:
        wrong += wrong_url(one.url)
    if not WINDOW_SECONDS_MIN <= one.window_seconds <= WINDOW_SECONDS_MAX:
        wrong.append(f"window_seconds must be {WINDOW_SECONDS_MIN} to {WINDOW_SECONDS_MAX}")
    if not 0 < one.timeout_seconds <= TIMEOUT_SECONDS_MAX:
        wrong.append(f"timeout_seconds must be above 0 and at most {TIMEOUT_SECONDS_MAX:g}")
    return wrong


def _at(one: AlertEndpointPart, base: Path) -> AlertsAt:
    return AlertsAt(
        name=one.name,
        kind=one.kind,
        url=one.url or (PAGERDUTY_URL if one.kind is AlertKind.PAGERDUTY else ""),
        url_file=checked_file(one.url_file, base, SECRET, "webhook URL"),
        key_file=checked_file(one.key_file, base, SECRET, "alert key"),
        bearer_file=checked_file(one.bearer_file, base, SECRET, "bearer token"),
        ca_file=checked_file(one.ca_file, base, PUBLIC, "certificate"),
        severity_min=one.severity_min,
        types=one.types,
        window_seconds=one.window_seconds,
        timeout_seconds=one.timeout_seconds,
    )
