"""The JSON body gate. Owns what a body must be before anyone reads a field of it: one object, one meaning (RFC 8259).

Refuses equal keys at any depth, anything but UTF-8, a byte order mark, lone surrogates, NaN and infinities, numbers
that do not survive, depth, trailing data, media types and codings other than plain JSON. What goes upstream is written
anew from the object this gate returns, so no parser behind us can read these bytes differently.
"""

import json
import math
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import NoReturn

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.provider import Json

DEPTH_MAX = 64
MEMBERS_MAX = 50_000
"""Strings, and members and elements that are no numbers, of one body: each costs time here and in what reads it."""
NUMBERS_MAX = 300_000
"""Whole numbers beside them: texts may be given as token numbers, and a vendor takes up to so many at once."""
INTEGER_CHARACTERS_MAX = 20
FLOAT_CHARACTERS_MAX = 64

_JSON_TYPE = re.compile(r"application/json(?: *; *charset=\"?utf-8\"?)?", re.IGNORECASE)
_NUMBERS = re.compile(rb"[-+.0-9eE]++")
_STRUCTURE = (b"{", b"[", b",")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = [1 if byte in b"[{" else -1 for byte in range(256)]
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def check_media(headers: Mapping[str, str]) -> None:
    """Look at the headers that say how the body is written.

    Raises:
        Refusal: CONTENT_TYPE_NOT_ALLOWED.
    """
    media = headers.get("content-type")
    if media is None or not _JSON_TYPE.fullmatch(media):
        raise Refusal(
            Reason.CONTENT_TYPE_NOT_ALLOWED, "the Content-Type must be application/json, in UTF-8; send it so"
        )
    if "content-encoding" in headers:
        raise Refusal(Reason.CONTENT_TYPE_NOT_ALLOWED, "compressed bodies are not taken; send the JSON as it is")


def parse_object(body: bytes) -> dict[str, Json]:
    """The object that `body` is.

    Raises:
        Refusal: BODY_INVALID; the message says which rule was broken and never quotes the body.
    """
    if sum(map(body.count, _STRUCTURE)) > DEPTH_MAX:
        _check_structure(body)
    try:
        parsed = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise _invalid("is not UTF-8") from None
    except json.JSONDecodeError as fault:
        what = f"is not JSON: {fault.msg} at character {fault.pos}"
        raise _invalid(what) from None
    except RecursionError:
        raise _too_deep() from None
    if type(parsed) is not dict:
        raise _invalid("is not a JSON object")
    if _SURROGATE.search(body):
        _check_surrogates(parsed)
    return parsed


def _invalid(what: str) -> Refusal:
    return Refusal(Reason.BODY_INVALID, f"the body {what}; send one JSON object")


def _too_deep() -> Refusal:
    return _invalid(f"is nested deeper than {DEPTH_MAX}")


def _too_many() -> Refusal:
    return _invalid(f"has too many members: more than {MEMBERS_MAX}, beside {NUMBERS_MAX} numbers")


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _invalid("has an object with two equal keys")
    return members


def _integer(digits: str) -> int:
    if len(digits) > INTEGER_CHARACTERS_MAX:
        what = f"has an integer of more than {INTEGER_CHARACTERS_MAX} characters"
        raise _invalid(what)
    return int(digits)


def _float(text: str) -> float:
    if len(text) > FLOAT_CHARACTERS_MAX:
        what = f"has a number of more than {FLOAT_CHARACTERS_MAX} characters"
        raise _invalid(what)
    number = float(text)
    if not math.isfinite(number):
        raise _invalid("has a number that is too large")
    return number


def _constant(name: str) -> NoReturn:
    what = f"holds {name}, which JSON does not have"
    raise _invalid(what)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def _check_structure(body: bytes) -> None:
    """Bound what one body makes us do, before it is parsed: one body must not hold up everyone else's calls.

    Looks at what is outside of strings, in a few passes that are all done by compiled code. For bytes that are not
    JSON the counts mean nothing, and the parser refuses them.
    """
    # Without the pairs, a backslash before a quote escapes it; without these, each quote begins or ends a string.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    if plain.count(b'"') > 2 * MEMBERS_MAX:
        raise _too_many()
    outside = b"".join(plain.split(b'"')[::2])
    brackets = outside.translate(None, _NO_BRACKETS)
    members = outside.count(b",") + len(brackets) // 2
    fractions = sum(map(outside.count, (b".", b"e", b"E")))
    if members > MEMBERS_MAX + NUMBERS_MAX or max(len(brackets) // 2, fractions) > MEMBERS_MAX:
        raise _too_many()
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > DEPTH_MAX:
        raise _too_deep()
    if members > MEMBERS_MAX and members - len(_NUMBERS.findall(outside)) > MEMBERS_MAX:
        raise _too_many()


def _check_surrogates(parsed: dict[str, Json]) -> None:
    try:
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise _invalid("has half of a surrogate pair") from None
