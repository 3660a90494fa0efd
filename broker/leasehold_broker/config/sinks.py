"""The collector's `[[sinks]]`: where copies of the log go. Owns their TOML shape and what is refused."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from leasehold_broker.config.parts import STREAM_NAME, STREAM_NAME_RULE, Part
from leasehold_broker.config.read import PUBLIC, SECRET, ConfigError, absolute, refuse_open_file
from leasehold_broker.domain.http_url import http_url_wrong, is_loopback, shown

SINKS_MAX = 16
LAG_RECORDS_MAX = 100_000_000
TIMEOUT_SECONDS_MAX = 300.0


class SinkKind(StrEnum):
    """What a sink is."""

    FILE = "file"
    WEBHOOK = "webhook"
    OTLP = "otlp"
    SYSLOG = "syslog"


class SinkFormat(StrEnum):
    """How an event is written."""

    OCSF = "ocsf"
    LEASEHOLD = "leasehold"


class SinkTransport(StrEnum):
    """How syslog travels."""

    TCP = "tcp"
    TLS = "tls"
    UDP = "udp"


class Sink(Part, frozen=True):
    """One `[[sinks]]` table."""

    name: str
    kind: SinkKind
    required: bool = False
    lag_records_max: int = 100_000
    types: tuple[str, ...] = ()
    from_start: bool = False
    format: SinkFormat = SinkFormat.OCSF
    path: str = ""
    url: str = ""
    bearer_file: str = ""
    key_file: str = ""
    ca_file: str = ""
    address: str = ""
    transport: SinkTransport = SinkTransport.TLS
    timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class SinkAt:
    """One sink, checked; what its kind does not use is empty. Paths are absolute."""

    name: str
    kind: SinkKind
    required: bool
    lag_records_max: int
    types: tuple[str, ...]
    from_start: bool
    format: SinkFormat
    path: Path
    url: str
    bearer_file: Path | None
    key_file: Path | None
    ca_file: Path | None
    host: str
    port: int
    transport: SinkTransport
    timeout_seconds: float


_NEEDS = {
    SinkKind.FILE: ("path",),
    SinkKind.WEBHOOK: ("url",),
    SinkKind.OTLP: ("url",),
    SinkKind.SYSLOG: ("address",),
}
_MAY_HAVE = {
    SinkKind.FILE: (),
    SinkKind.WEBHOOK: ("bearer_file", "key_file", "ca_file"),
    SinkKind.OTLP: ("bearer_file", "ca_file"),
    SinkKind.SYSLOG: ("ca_file",),
}
_PLACES = ("path", "url", "address", "bearer_file", "key_file", "ca_file")


def sinks_at(sinks: tuple[Sink, ...], path: Path) -> tuple[SinkAt, ...]:
    """All sinks, checked.

    Raises:
        ConfigError: lists everything that is wrong.
    """
    wrong = [f"sink {sink.name!r}: {what}" for sink in sinks for what in _wrong(sink)]
    names = [sink.name for sink in sinks]
    wrong += [f"sink {name!r} is there twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if len(sinks) > SINKS_MAX:
        wrong.append(f"at most {SINKS_MAX} sinks, were {len(sinks)}")
    if wrong:
        message = f"{path}: " + "; ".join(wrong)
        raise ConfigError(message)
    return tuple(_at(sink, path.parent) for sink in sinks)


def _wrong(sink: Sink) -> list[str]:
    wrong = []
    if not STREAM_NAME.fullmatch(sink.name):
        wrong.append(f"its name {STREAM_NAME_RULE}")
    needed = _NEEDS[sink.kind]
    wrong += [f"a {sink.kind} needs {name}" for name in needed if not getattr(sink, name)]
    allowed = {*needed, *_MAY_HAVE[sink.kind]}
    wrong += [f"a {sink.kind} has no {name}" for name in _PLACES if getattr(sink, name) and name not in allowed]
    if not 0 < sink.lag_records_max <= LAG_RECORDS_MAX:
        wrong.append(f"lag_records_max must be 1 to {LAG_RECORDS_MAX}")
    if not 0 < sink.timeout_seconds <= TIMEOUT_SECONDS_MAX:
        wrong.append(f"timeout_seconds must be above 0 and at most {TIMEOUT_SECONDS_MAX:g}")
    if sink.url:
        wrong += wrong_url(sink.url)
    if sink.address and not _host_and_port(sink.address)[1]:
        wrong.append(f"address {sink.address!r} is not HOST:PORT")
    if sink.kind is SinkKind.SYSLOG and sink.required:
        wrong.append("syslog acknowledges nothing, so nobody can tell whether it has an event: it cannot be required")
    if sink.kind is SinkKind.SYSLOG and sink.transport is not SinkTransport.TLS and not _local(sink.address):
        wrong.append('events name subjects and leases: use transport = "tls" beyond this machine')
    return wrong


def wrong_url(url: str) -> list[str]:
    """What is wrong with a URL that events or alerts go to; empty when it may be used."""
    why = http_url_wrong(url)
    if why is not None:
        return [f"url {shown(url)} {why}"]
    if url.startswith("http:") and not _is_loopback(urlsplit(url).hostname or ""):
        return ["events name subjects and leases: use https beyond this machine"]
    return []


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    number = int(port) if port.isdecimal() and len(port) <= 5 else 0
    return host.removeprefix("[").removesuffix("]"), number if host and number <= 65535 else 0


def _local(address: str) -> bool:
    return _is_loopback(_host_and_port(address)[0])


def _is_loopback(host: str) -> bool:
    return host == "localhost" or is_loopback(host)


def _at(sink: Sink, base: Path) -> SinkAt:
    host, port = _host_and_port(sink.address)
    return SinkAt(
        name=sink.name,
        kind=sink.kind,
        required=sink.required,
        lag_records_max=sink.lag_records_max,
        types=sink.types,
        from_start=sink.from_start,
        format=sink.format,
        path=absolute(sink.path, base),
        url=sink.url,
        bearer_file=checked_file(sink.bearer_file, base, SECRET, "bearer token"),
        key_file=checked_file(sink.key_file, base, SECRET, "signing key"),
        ca_file=checked_file(sink.ca_file, base, PUBLIC, "certificate"),
        host=host,
        port=port,
        transport=sink.transport,
        timeout_seconds=sink.timeout_seconds,
    )


def checked_file(path: str, base: Path, forbidden: int, what: str) -> Path | None:
    """The absolute path of a file that nobody else may use so; None for "".

    Raises:
        ConfigError: missing, or open to others.
    """
    if not path:
        return None
    refuse_open_file(absolute(path, base), forbidden, what)
    return absolute(path, base)
