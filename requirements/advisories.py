"""Asks an advisory database about every pin of every set: `python requirements/advisories.py`, by `make audit-deps`.

Speaks the API of OSV (https://google.github.io/osv.dev/api/), which has the advisories of PyPI and of GitHub: all pins
in one `querybatch`, then each advisory that was named. Markers are not looked at: a pin for another system counts too.

Environment:
    ADVISORIES_URL: of the database, https or loopback; `https://api.osv.dev` when not set, or a mirror of it.
    ADVISORIES: `required`, as for a release: not to be answered is a failure. Otherwise it is said and passes, because
        the floors kept by hand (floors.toml) hold without a network.

Exits with 0 when nothing is wrong, 1 when a pin has a known flaw, 2 when an answer is required and there was none, or
only a part of one. Each batch asks, too, about a release that is known to be flawed: whatever says that it is not, does
not know, and counts as no answer.
"""

import json
import os
import re
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

FOLDER = Path(__file__).parent
DATABASE = "https://api.osv.dev"
KNOWN_TO_BE_FLAWED = ("jinja2", "2.4.1")
"""PYSEC-2014-8 and others; the example in the API's own documentation."""

BATCH_PINS_MAX = 500
"""The API takes 1,000 queries at once."""
PAGES_MAX = 10
ANSWER_BYTES_MAX = 16 << 20
TIMEOUT_SECONDS = 30
SUMMARY_CHARACTERS_MAX = 200

_PIN = re.compile(r"^([a-z0-9._-]+)(?:\[[a-z0-9,._-]+\])?==([^ ;\\]+)", re.MULTILINE)
_ADVISORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")

Pin = tuple[str, str]
"""Name and version."""


class NoAnswerError(Exception):
    """The database was not reached, or what answered is none."""


@dataclass(frozen=True, slots=True)
class Advisory:
    """One known flaw. `fixed` has the versions without it, as far as they are known."""

    name: str
    summary: str = "no summary"
    fixed: tuple[str, ...] = ()
    withdrawn: bool = False


def pins_of(text: str) -> list[Pin]:
    """Every pin of a compiled set, whatever its marker says."""
    return _PIN.findall(text)


class Database:
    """An advisory database that speaks OSV's API."""

    def __init__(self, address: str) -> None:
        """Know its address; raises ValueError for one in clear text over a network."""
        parts = urlsplit(address)
        if parts.scheme != "https" and not (
            parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        ):
            message = f"ADVISORIES_URL is {address!r}; it has to be https, or http to this machine"
            raise ValueError(message)
        self._address = address.rstrip("/")

    def flaws(self, pins: list[Pin]) -> dict[Pin, list[str]]:
        """Names of advisories, for every pin that has any."""
        found: dict[Pin, list[str]] = {}
        for at in range(0, len(pins), BATCH_PINS_MAX):
            batch = [KNOWN_TO_BE_FLAWED, *pins[at : at + BATCH_PINS_MAX]]
            answered = self._batch(batch)
            if not answered[0]:
                message = f"it knows of no flaw in {'=='.join(KNOWN_TO_BE_FLAWED)}, which has several"
                raise NoAnswerError(message)
            found |= {pin: names for pin, names in zip(batch[1:], answered[1:], strict=True) if names}
        return found

    def advisory(self, name: str) -> Advisory:
        """What is known of one; the name alone where the database does not say more."""
        try:
            told = self._asked(f"/v1/vulns/{quote(name, safe='')}", None)
        except NoAnswerError as error:
            return Advisory(name, f"not told more: {error}")
        ranges = [one for affected in _list(told, "affected") for one in _list(affected, "ranges")]
        fixed = [
            event["fixed"]
            for one in ranges
            for event in _list(one, "events")
            if isinstance(event, dict) and "fixed" in event
        ]
        summary = str(told.get("summary") or told.get("details") or "no summary")
        line = "".join(sign if sign.isprintable() else " " for sign in summary)[:SUMMARY_CHARACTERS_MAX]
        return Advisory(name, line, tuple(sorted({str(one)[:40] for one in fixed})), "withdrawn" in told)

    def _batch(self, pins: list[Pin]) -> list[list[str]]:
        names: list[list[str]] = [[] for _ in pins]
        asked = [(place, _query(pin, "")) for place, pin in enumerate(pins)]
        for _ in range(PAGES_MAX):
            results = self._asked("/v1/querybatch", {"queries": [query for _, query in asked]}).get("results")
            if not isinstance(results, list) or len(results) != len(asked):
                message = (
                    f"asked about {len(asked)} pins, it told of {len(results) if isinstance(results, list) else 'none'}"
                )
                raise NoAnswerError(message)
            more = []
            for (place, _), result in zip(asked, results, strict=True):
                names[place] += _names(result)
                if token := result.get("next_page_token"):
                    more.append((place, _query(pins[place], str(token))))
            if not more:
                return names
            asked = more
        message = f"more than {PAGES_MAX} pages of advisories for {pins[asked[0][0]]}"
        raise NoAnswerError(message)

    def _asked(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - https or loopback, as looked at above
            self._address + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json", "user-agent": "leasehold-audit-deps"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - as above
                text = answer.read(ANSWER_BYTES_MAX + 1)
            told = json.loads(text) if len(text) <= ANSWER_BYTES_MAX else None
        except urllib.error.HTTPError as error:
            message = f"it answered with HTTP {error.code}"
            raise NoAnswerError(message) from error
        except (OSError, HTTPException) as error:
            message = f"not reached: {error}"
            raise NoAnswerError(message) from error
        except (ValueError, RecursionError) as error:
            message = "what it answered is not JSON"
            raise NoAnswerError(message) from error
        if not isinstance(told, dict):
            message = f"what it answered is no JSON object of at most {ANSWER_BYTES_MAX} bytes"
            raise NoAnswerError(message)
        return told


def _list(value: object, member: str) -> list[Any]:
    found = value.get(member) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _query(pin: Pin, page_token: str) -> dict[str, Any]:
    query: dict[str, Any] = {"package": {"name": pin[0], "ecosystem": "PyPI"}, "version": pin[1]}
    return query | {"page_token": page_token} if page_token else query


def _names(result: object) -> list[str]:
    """Of the advisories in one result; an empty object is how the API says that there is none."""
    told = result.get("vulns", []) if isinstance(result, dict) else None
    names = [one.get("id") if isinstance(one, dict) else None for one in told] if isinstance(told, list) else [None]
    if not all(isinstance(name, str) and _ADVISORY.fullmatch(name) for name in names):
        message = "a result of its batch is not of the documented shape"
        raise NoAnswerError(message)
    return [name for name in names if name]


def report(sets: dict[str, list[Pin]], found: dict[Pin, list[Advisory]]) -> list[str]:
    """One line for each set, and one for each flaw in it."""
    lines = []
    for name, pins in sets.items():
        flawed = [pin for pin in pins if pin in found]
        lines.append(f"{name}: {len(pins)} pins looked up, {len(flawed)} with a known flaw")
        for pin in flawed:
            for one in found[pin]:
                upgrade = f"fixed in {', '.join(one.fixed)}" if one.fixed else "no fixed release is told"
                lines.append(f"  {'=='.join(pin)}: {one.name}: {one.summary}; {upgrade}")
    return lines


def audit(folder: Path, address: str, *, required: bool) -> tuple[list[str], int]:
    """What is said of the sets in a folder, and the exit code."""
    sets = {path.name: pins_of(path.read_text()) for path in sorted(folder.glob("*.txt"))}
    pins = sorted({pin for found in sets.values() for pin in found})
    if not pins or not all(sets.values()):
        return [f"no pins in {[name for name, found in sets.items() if not found] or folder}"], 2
    try:
        database = Database(address)
        named = database.flaws(pins)
    except ValueError as error:
        return [str(error)], 2
    except NoAnswerError as error:
        consequence = (
            "that is a failure here"
            if required
            else "the floors kept by hand hold; ADVISORIES=required makes it a failure"
        )
        return [
            f"NOTHING WAS LOOKED UP of {len(pins)} pins in {len(sets)} sets: no answer from {address}: {error}",
            f"  ({consequence}; a mirror's address goes into ADVISORIES_URL)",
        ], 2 if required else 0
    told = {name: database.advisory(name) for name in sorted({name for names in named.values() for name in names})}
    standing = {pin: [told[name] for name in names if not told[name].withdrawn] for pin, names in named.items()}
    found = {pin: advisories for pin, advisories in standing.items() if advisories}
    return report(sets, found), 1 if found else 0


def main() -> int:
    """Ask about every set in this folder."""
    address = os.environ.get("ADVISORIES_URL") or DATABASE
    lines, code = audit(FOLDER, address, required=os.environ.get("ADVISORIES") == "required")
    sys.stdout.write("\n".join(lines) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
