"""Selectors from a file, one a line, for `leasehold revoke --from`. Owns the words of a line.

Nothing is sent unless every line can be read. Refuses to quote a line in an error: a token may have got into the file.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

import click

from leasehold import LeaseholdError
from leasehold.operators import selector
from leasehold.v1 import revocation_service_pb2 as revocation

LINES_MAX = 1000
# With comments and empty lines; beyond either, the file is something else, or has no end.
FILE_LINES_MAX = 100_000
LINE_CHARACTERS_MAX = 4096
WRONG_LINES_SHOWN = 5
LEASE_PREFIX = "leases/"
WORDS = ("lease", "subject", "issuer", "key", "provider", "environment", "label", "sidecar")

_PLACE = re.compile(r"selectors\[(\d+)\]")


@dataclass(frozen=True)
class Line:
    """One selector, and where it stands; 0: in no file."""

    number: int
    selector: revocation.RevocationSelector


def read_selectors(file: TextIO, issuer: str) -> list[Line]:
    """Every line that is no comment, each selector once.

    Args:
        file: of lines "WORD VALUE", or names of leases.
        issuer: narrows every subject to this issuer; "": any.

    Raises:
        click.UsageError: a line cannot be read, there is none, or there are more than fit one call.
    """
    found: dict[bytes, Line] = {}
    wrong: list[str] = []
    for number, line in _bounded(file):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            chosen = _selector(text, issuer)
        except UnicodeEncodeError:
            wrong.append(f"line {number}: is not text in UTF-8")
        except LeaseholdError as error:
            wrong.append(f"line {number}: {error.message}")
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
        else:
            found.setdefault(chosen.SerializeToString(deterministic=True), Line(number, chosen))
    if wrong:
        more = f"; and {len(wrong) - WRONG_LINES_SHOWN} lines more" if len(wrong) > WRONG_LINES_SHOWN else ""
        message = f"nothing was revoked: {'; '.join(wrong[:WRONG_LINES_SHOWN])}{more}"
        raise click.UsageError(message)
    if not 0 < len(found) <= LINES_MAX:
        message = f"nothing was revoked: the file names {len(found)} selectors, and 1 to {LINES_MAX} go into one call"
        raise click.UsageError(message)
    return list(found.values())


def with_lines(message: str, lines: list[Line]) -> str:
    """What the collector says of selectors by their place, said by their line."""
    return _PLACE.sub(lambda place: f"line {lines[int(place[1])].number}", message)


def _bounded(file: TextIO) -> Iterator[tuple[int, str]]:
    for number in range(1, FILE_LINES_MAX + 2):
        try:
            line = file.readline(LINE_CHARACTERS_MAX + 1)
        except UnicodeDecodeError:
            message = f"nothing was revoked: line {number} of the file, or one soon after it, is not text in UTF-8"
            raise click.UsageError(message) from None
        if not line:
            return
        if len(line) > LINE_CHARACTERS_MAX or number > FILE_LINES_MAX:
            most = f"a line has at most {LINE_CHARACTERS_MAX} characters, a file {FILE_LINES_MAX} lines"
            message = f"nothing was revoked: {most}; line {number} is beyond that: is it the right file?"
            raise click.UsageError(message)
        yield number, line


def _selector(text: str, issuer: str) -> revocation.RevocationSelector:
    if text.startswith(LEASE_PREFIX):
        return selector(lease=text)
    word, _, value = text.partition(" ")
    value = value.strip()
    if word not in WORDS or not value:
        message = f"must be the name of a lease ({LEASE_PREFIX}...), or one of {', '.join(WORDS)} and then a name"
        raise ValueError(message)
    chosen: dict[str, Any] = {word: value}
    if word == "label":
        name, equals, text = value.partition("=")
        if not (name and equals and text):
            message = "a label must be NAME=VALUE"
            raise ValueError(message)
        chosen = {"label": (name, text)}
    if word == "subject":
        chosen["issuer"] = issuer
    return selector(**chosen)
