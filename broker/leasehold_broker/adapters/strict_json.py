"""JSON objects without room for two readings. Owns the strict reading of tokens and key sets; bounded in depth.

The standard reader keeps the last of two equal members, takes NaN, a BOM and lone surrogates, and recurses as deep as
it is told to: two readers of one text can see two different objects. Here such a text is no JSON (RFC 8259, section 4).
"""

import json
import math
from typing import NoReturn

DEPTH_MAX = 8
TEXT_START = "{"


class NotStrictJsonError(ValueError):
    """The bytes are no strict JSON object. The message says why and never repeats the bytes."""


def read_object(data: bytes) -> dict[str, object]:
    """The object that `data` is.

    Raises:
        NotStrictJsonError: not UTF-8, not one object, duplicate members, non-finite numbers, lone surrogates, or
            nested deeper than `DEPTH_MAX`.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise NotStrictJsonError("not UTF-8") from None
    if not text.startswith(TEXT_START):
        raise NotStrictJsonError("not a JSON object")
    try:
        value = _DECODER.decode(text)
    except NotStrictJsonError:
        raise
    except (ValueError, RecursionError):
        raise NotStrictJsonError("not valid JSON") from None
    _check(value, DEPTH_MAX)
    assert isinstance(value, dict)  # noqa: S101 - the text starts with a brace and parsed: nothing else is possible
    return value


def _no_duplicates(members: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(members)
    if len(value) != len(members):
        raise NotStrictJsonError("duplicate members")
    return value


def _no_constant(_name: str) -> NoReturn:
    raise NotStrictJsonError("a number that is not finite")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotStrictJsonError("a number that is not finite")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)


def _check(value: object, depth_left: int) -> None:
    if isinstance(value, str):
        if not value.isascii():
            _check_text(value)
    elif isinstance(value, (dict, list)):
        if depth_left == 0:
            message = f"nested deeper than {DEPTH_MAX}"
            raise NotStrictJsonError(message)
        if isinstance(value, dict):
            for name in value:
                _check(name, depth_left)
        for member in value.values() if isinstance(value, dict) else value:
            _check(member, depth_left - 1)


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise NotStrictJsonError("a lone surrogate") from None
