"""Names of models: a vendor's documented forms of one name. Owns the forms; refuses to guess.

A name that merely starts like a known one is unknown: it may be another model at another price.
"""

import re
from collections.abc import Iterator
from typing import Final

_DAY: Final = r"20\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_DATED: Final = {
    "anthropic": re.compile(rf"(?P<base>.+?)(?:-{_DAY}|-latest)"),
    "openai": re.compile(r"(?P<base>.+?)-20\d{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"),
    "gemini": re.compile(r"(?P<base>.+?)-00[1-9]"),
    "vertex": re.compile(rf"(?P<base>.+?)(?:-00[1-9]|@{_DAY}|@default|@latest)"),
}
"""claude-sonnet-4-5-20250929, claude-3-7-sonnet-latest; gpt-4o-2024-08-06; gemini-2.0-flash-001;
claude-sonnet-4-5@20250929.
"""
_BEDROCK: Final = re.compile(rf"(?P<base>.+?)(?:-(?P<day>{_DAY}))?(?:-v\d+)?(?::\d+)?")
_GROUPED: Final = re.compile(r"(?:regional\.|global\.)?(?P<vendor>[a-z-]+)[./](?P<name>.+)")


def known_as(provider: str, model: str) -> Iterator[str]:
    """Names under which the table may hold this model, the most exact first."""
    yield model
    if provider == "bedrock":
        yield from _bedrock(model)
        return
    pattern = _DATED.get(provider)
    match = pattern.fullmatch(model) if pattern is not None else None
    if match is not None:
        base = match["base"]
        yield from (base, f"{base}-0", f"{base}-latest")


def _bedrock(model: str) -> Iterator[str]:
    """Without the version and the day that a table may leave out; a profile's place is never exchanged for another."""
    match = _BEDROCK.fullmatch(model)
    if match is None:
        return
    base, day = match["base"], match["day"]
    for stem in (f"{base}-{day}", base) if day else (base,):
        yield from (stem, f"{stem}-v1:0", f"{stem}-v1")


def limit_names(provider: str, model: str) -> Iterator[tuple[str, str]]:
    """(vendor, name) under which the largest answer of this model may be documented."""
    yield provider, model
    if provider == "vertex":
        yield from (("gemini", model), ("anthropic", model))
        return
    match = _GROUPED.fullmatch(model)
    if match is None:
        return
    vendor, name = match["vendor"], match["name"]
    plain = _BEDROCK.fullmatch(name)
    for each in (name, plain["base"] if plain is not None else name):
        yield vendor, each
        yield vendor, each.replace(".", "-")
        yield vendor, f"{each}-latest"
