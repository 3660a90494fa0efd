"""The [providers.NAME] tables: where a provider is reached, and which dialect a host of one's own speaks.

Owns shape and checks; what each kind of host serves is the providers' part.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import ConfigError
from leasehold_broker.domain.host_settings import (
    AZURE,
    BEDROCK,
    COMPATIBLE,
    KINDS,
    LOCATION,
    OUTPUT_LIMITS,
    PROJECT,
    REGION,
    TUNABLE,
    VERTEX,
    HostSettings,
)
from leasehold_broker.domain.http_url import in_the_clear, origin_wrong, shown
from leasehold_broker.domain.scope import PROVIDER_RULE, PROVIDERS, is_provider

_PATH = re.compile(r"(?:/[A-Za-z0-9_-]{1,64}){0,6}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DEPLOYMENT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,63}")
_ADDRESSLESS = (AZURE, COMPATIBLE)
_DECLARED = (AZURE, VERTEX)
"""Vendors that cannot be served without what the operator says."""
_IMAGE_TOKENS_MAX = 1_000_000
_EXTRA_FIELDS_MAX = 64


class Provider(Part, frozen=True):
    """One table. Settings that its kind does not have are refused."""

    origin: str = ""
    allow_private: bool = False
    kind: str = ""
    path: str | None = None
    output_limit: str = ""
    asks_for_usage: bool | None = None
    image_tokens_max: int = 0
    extra_fields: tuple[str, ...] = ()
    deployments: dict[str, str] = msgspec.field(default_factory=dict)
    prices_of: str = ""
    project: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True)
class ProviderAt:
    """Where a provider is reached, and what it is.

    Args:
        origin: scheme and host; "" for the vendor's public API.
        allow_private: a private address is meant.
        settings: of a declared host; None for a vendor as it is.
        prices_of: the vendor whose table has its prices, where there are none under its own name; "" for none.
    """

    origin: str
    allow_private: bool
    settings: HostSettings | None
    prices_of: str


def providers_at(tables: dict[str, Provider], path: Path) -> dict[str, ProviderAt]:
    """All tables, checked.

    Raises:
        ConfigError: names the setting and what to change.
    """
    return {name: _provider(name, table, path) for name, table in tables.items()}


def _provider(name: str, table: Provider, path: Path) -> ProviderAt:
    wrong = list(_faults(name, table))
    if wrong:
        message = f"{path}: [providers.{name}] " + "; ".join(wrong)
        raise ConfigError(message)
    kind = table.kind or name
    if table.origin:
        _check_origin(name, table, path)
    declared = (
        name not in PROVIDERS or kind in _DECLARED or table.location or table.image_tokens_max or table.extra_fields
    )
    settings = HostSettings(
        kind=kind,
        path="/v1" if table.path is None else table.path,
        output_limit=table.output_limit or OUTPUT_LIMITS[0],
        asks_for_usage=table.asks_for_usage is not False,
        image_tokens_max=table.image_tokens_max,
        extra_fields=table.extra_fields,
        deployments=table.deployments,
        project=table.project,
        location=table.location,
    )
    prices_of = table.prices_of or (kind if kind in PROVIDERS and kind != name else "")
    return ProviderAt(table.origin.rstrip("/"), table.allow_private, settings if declared else None, prices_of)


def _faults(name: str, table: Provider) -> list[str]:
    if not is_provider(name):
        return [f"is unknown: {PROVIDER_RULE}"]
    kind = table.kind or name
    if name in PROVIDERS and kind != name:
        return [f"kind {kind!r}: a vendor's own name stands for that vendor; name this host own-..."]
    if name not in PROVIDERS and kind not in KINDS:
        return [f"kind {table.kind!r} is unknown; use one of {', '.join(KINDS)}"]
    wrong = [
        f"{setting} goes with kind {' or '.join(kinds)} only"
        for setting, given, kinds in (
            ("path", table.path is not None, (COMPATIBLE,)),
            ("output_limit", bool(table.output_limit), (COMPATIBLE,)),
            ("asks_for_usage", table.asks_for_usage is not None, (COMPATIBLE,)),
            ("deployments", bool(table.deployments), (AZURE,)),
            ("prices_of", bool(table.prices_of), (AZURE, COMPATIBLE)),
            ("image_tokens_max", bool(table.image_tokens_max), TUNABLE),
            ("extra_fields", bool(table.extra_fields), TUNABLE),
            ("project", bool(table.project), (VERTEX,)),
            ("location", bool(table.location), (BEDROCK, VERTEX)),
        )
        if given and kind not in kinds
    ]
    if kind in _ADDRESSLESS and not table.origin:
        wrong.append('needs origin, e.g. "https://llm.internal.example"')
    if kind == AZURE and not table.deployments:
        wrong.append('needs deployments: { "name of the deployment" = "model that it serves" }')
    if kind == VERTEX and not table.project:
        wrong.append("needs project, the id of the one that pays")
    if table.location and not (REGION if kind == BEDROCK else LOCATION).fullmatch(table.location):
        wrong.append(f'location {table.location!r} must be a region; Vertex AI also has "global", "us" and "eu"')
    return wrong + _wrong_values(table)


def _wrong_values(table: Provider) -> list[str]:
    wrong = []
    if table.path is not None and not _PATH.fullmatch(table.path):
        wrong.append(f'path {table.path!r} must be "" or like "/v1", without a slash at its end')
    if table.output_limit not in ("", *OUTPUT_LIMITS):
        wrong.append(f"output_limit {table.output_limit!r} must be one of {', '.join(OUTPUT_LIMITS)}")
    if not 0 <= table.image_tokens_max <= _IMAGE_TOKENS_MAX:
        wrong.append(f"image_tokens_max must be 0 to {_IMAGE_TOKENS_MAX}, was {table.image_tokens_max}")
    if len(table.extra_fields) > _EXTRA_FIELDS_MAX or not all(map(_FIELD.fullmatch, table.extra_fields)):
        wrong.append(f"extra_fields must be at most {_EXTRA_FIELDS_MAX} names of members of a chat request")
    wrong += [
        f"deployments: {deployment!r} = {model!r} must be plain names"
        for deployment, model in table.deployments.items()
        if not (_DEPLOYMENT.fullmatch(deployment) and _DEPLOYMENT.fullmatch(model))
    ]
    if table.project and not PROJECT.fullmatch(table.project):
        wrong.append(f"project {table.project!r} must be the id or number of a project")
    if table.prices_of and table.prices_of not in PROVIDERS:
        wrong.append(f"prices_of {table.prices_of!r} is unknown; use one of {', '.join(PROVIDERS)}")
    return wrong


def _check_origin(name: str, table: Provider, path: Path) -> None:
    origin = table.origin.rstrip("/")
    why = origin_wrong(origin)
    if why is not None:
        message = f"{path}: [providers.{name}] origin {shown(table.origin)} {why}"
        raise ConfigError(message)
    if in_the_clear(origin) or (origin.startswith("http:") and not table.allow_private):
        message = (
            f"{path}: [providers.{name}] origin {table.origin!r} would send the key in the clear; use https, or, "
            "for a server on this machine, a loopback address such as 127.0.0.1 with allow_private = true"
        )
        raise ConfigError(message)
