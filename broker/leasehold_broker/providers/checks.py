"""Small checks that the vendors share. Owns their wording: what was wrong, where, what to do next."""

import base64
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from leasehold_broker.domain.reasons import Reason, Refusal, Violation
from leasehold_broker.ports.provider import Json

MODEL_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,127}")
"""Names of models, in paths and bodies. No slash, colon or percent sign: no tuned, foreign or encoded names."""
GROUPED_NAME: Final = re.compile(rf"{MODEL_NAME.pattern}(?:/{MODEL_NAME.pattern}){{0,4}}(?::[A-Za-z0-9._-]{{1,64}})?")
"""Names of models by group, as hosts of many vendors' models have them, with a variant: "meta-llama/llama-4:free"."""
OUTPUT_TOKENS_MAX: Final = 10_000_000
"""Largest output limit that is taken seriously."""
OUTPUT_TOKENS_FLOOR: Final = 16
"""Smallest output limit that is chosen for a request: the Responses API refuses less, and nobody can use less."""
_SHOWN: Final = 64
_MODEL_CHARACTERS_MAX: Final = 256

Object = dict[str, Json]


def invalid(field: str, why: str) -> Refusal:
    """A field of the body is wrong: says which and why."""
    message = f"{_shown(field)}: {why}"
    return Refusal(Reason.BODY_INVALID, message, violations=(Violation(_shown(field), why),))


def unbounded(field: str, what: str) -> Refusal:
    """A field asks for something whose cost has no bound: says which, and what to do."""
    message = f"{_shown(field)}: {what}"
    return Refusal(Reason.COST_UNBOUNDED, message, violations=(Violation(_shown(field), what),))


def _shown(name: str) -> str:
    """A caller's name, short and without control characters, for a sentence."""
    text = name if name.isprintable() else repr(name)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def at(where: str, name: str) -> str:
    """The name of a member for a sentence."""
    return f"{where}.{name}" if where else name


def check_fields(value: Object, where: str, allowed: frozenset[str], refused: Mapping[str, str]) -> None:
    """Refuse every member that is not listed. A listed-as-refused member may stand there as null.

    Args:
        value: the object.
        where: its name in sentences, e.g. "messages[2]"; empty for the body itself.
        allowed: members that are sent on.
        refused: members that the vendor knows and whose cost or reach has no bound, with what to do instead.

    Raises:
        Refusal: COST_UNBOUNDED for a refused member, BODY_INVALID for an unknown one.
    """
    for name in value:
        if name in allowed:
            continue
        field = at(where, name)
        if name in refused:
            if value[name] is None:
                continue
            raise unbounded(field, refused[name])
        raise invalid(field, "is not a field that this broker knows for this operation; leave it out")


def as_object(value: Json, field: str) -> Object:
    """The value as an object.

    Raises:
        Refusal: BODY_INVALID.
    """
    if not isinstance(value, dict):
        raise invalid(field, "must be an object")
    return value


def as_list(value: Json, field: str) -> list[Json]:
    """The value as a list.

    Raises:
        Refusal: BODY_INVALID.
    """
    if not isinstance(value, list):
        raise invalid(field, "must be a list")
    return value


def as_text(value: Json, field: str) -> str:
    """The value as a string.

    Raises:
        Refusal: BODY_INVALID.
    """
    if not isinstance(value, str):
        raise invalid(field, "must be a string")
    return value


def kind_of(value: Object, name: str = "type") -> str:
    """A string member that sorts an object, or ""; a value of another type sorts nothing."""
    kind = value.get(name)
    return kind if isinstance(kind, str) else ""


def flag(body: Object, field: str) -> bool:
    """A boolean member; False when absent or null.

    Raises:
        Refusal: BODY_INVALID.
    """
    value = body.get(field)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise invalid(field, "must be true or false")
    return value


def form_flag(form: Object, field: str) -> bool:
    """A boolean that a form carries as text, as SDKs write it; False when absent.

    Raises:
        Refusal: BODY_INVALID: another word, which a server could take for true.
    """
    value = form.get(field, "false")
    if value not in ("true", "True", "false", "False"):
        raise invalid(field, "must be true or false")
    return value in ("true", "True")


def whole(body: Object, field: str, low: int, high: int, where: str = "") -> int | None:
    """An integer member between bounds; None when absent or null.

    Raises:
        Refusal: BODY_INVALID.
    """
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise invalid(where + field, f"must be a whole number from {low} to {high}")
    return value


def one_of(body: Object, field: str, allowed: frozenset[str], why: str, where: str = "") -> None:
    """A string member that may have few values; absent and null pass.

    Raises:
        Refusal: COST_UNBOUNDED for another value.
    """
    value = body.get(field)
    if value is not None and kind_of(body, field) not in allowed:
        raise unbounded(where + field, f"{why}; use {' or '.join(sorted(allowed))}, or leave it out")


def model_name(
    body: Object, alphabet: re.Pattern[str] = MODEL_NAME, refused: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The model that the body names.

    Args:
        body: the request.
        alphabet: of this host's names.
        refused: parts of names whose use has no bound, with the reason.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    model = as_text(body.get("model"), "model")
    if len(model) > _MODEL_CHARACTERS_MAX or not alphabet.fullmatch(model):
        raise invalid("model", f"{_shown(model)!r} is not a plain model name; tuned models and paths are not served")
    for part, why in refused.items():
        if part in model:
            raise unbounded("model", why)
    return model


def required_body(body: Object | None) -> Object:
    """The body of a route that takes one.

    Raises:
        Refusal: BODY_INVALID.
    """
    if body is None:
        raise invalid("body", "this route needs a JSON object as body")
    return body


def inline_image(url: Json, field: str) -> str:
    """The data of an image given as a `data:` URL.

    Raises:
        Refusal: COST_UNBOUNDED for any other URL, BODY_INVALID for a value that is no base64.
    """
    text = as_text(url, field)
    head, comma, data = text.partition(",")
    if not head.startswith("data:image/") or not comma:
        raise unbounded(
            field, "images are taken inline only, as a data:image/...;base64 URL: a remote one has no bound"
        )
    if not head.endswith(";base64"):
        raise invalid(field, "an inline image must be base64")
    return base64_text(data, field)


def base64_text(value: Json, field: str) -> str:
    """The value as base64 text of one of the two alphabets.

    Raises:
        Refusal: BODY_INVALID.
    """
    text = as_text(value, field)
    if not _BASE64.fullmatch(text):
        raise invalid(field, "must be base64")
    return text


def base64_bytes(value: Json, field: str) -> bytes:
    """What the value stands for.

    Raises:
        Refusal: BODY_INVALID.
    """
    text = base64_text(value, field).translate(_PLAIN_BASE64).rstrip("=")
    if len(text) % 4 == 1:
        raise invalid(field, "must be base64")
    return base64.b64decode(text + "=" * (-len(text) % 4))


_PLAIN_BASE64: Final = str.maketrans("-_", "+/")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
