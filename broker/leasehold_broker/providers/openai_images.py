"""OpenAI's pictures: generations and edits, where their cost has a bound. Pure.

A picture is billed by its output tokens; how many it can have follows from model and quality (the vendor's guide to
image generation; for gpt-image-2 the largest size of its calculator). Source of the shapes: openai 3.54.0,
types/image_generate_params.py, types/image_edit_params.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Form, Meter
from leasehold_broker.providers.bounds import Parts, input_tokens_bound
from leasehold_broker.providers.checks import (
    Object,
    as_text,
    check_fields,
    flag,
    form_flag,
    invalid,
    kind_of,
    one_of,
    unbounded,
    whole,
)
from leasehold_broker.providers.last_event import LastEvent
from leasehold_broker.providers.meters import SseMeter, choose
from leasehold_broker.providers.operation import TakesJson, WithoutLimit
from leasehold_broker.providers.usage import openai_usage

GENERATION_FIELDS: Final = frozenset(
    (
        "background",
        "model",
        "moderation",
        "n",
        "output_compression",
        "output_format",
        "partial_images",
        "prompt",
        "quality",
        "safety_identifier",
        "size",
        "stream",
        "user",
    )
)
EDIT_FIELDS: Final = (GENERATION_FIELDS - {"moderation"}) | {"image", "image[]", "input_fidelity", "mask"}
_SHAPES: Final = "no bound is known for what it adds; ask for a plain picture"
REFUSED: Final = {
    "complexity": _SHAPES,
    "frame_count": _SHAPES,
    "frame_duration_ms": _SHAPES,
    "markup": _SHAPES,
    "svg": _SHAPES,
    "response_format": "only dall-e has it, which is not served; leave it out",
    "style": "only dall-e has it, which is not served; leave it out",
}
_OUTPUT_1: Final = {"low": 408, "medium": 1_584, "high": 6_240}
_OUTPUT_2: Final = {"low": 768, "medium": 6_144, "high": 24_576}
_OUTPUT: Final[Mapping[str, Mapping[str, int]]] = {
    "gpt-image-1": _OUTPUT_1,
    "gpt-image-1-mini": _OUTPUT_1,
    "gpt-image-2": _OUTPUT_2,
    "gpt-image-2-2026-04-21": _OUTPUT_2,
}
"""The most output tokens of one picture of the largest size, by quality."""
_EDITED: Final = frozenset(("gpt-image-1", "gpt-image-1-mini"))
_PARTIAL_TOKENS: Final = 100
_INPUT_TOKENS: Final = 8_192
"""Of one picture that is edited, at high fidelity: 65 and four tiles of 129, and 6,240; rounded up."""
_QUALITIES: Final = frozenset(("auto", "high", "low", "medium"))
_FORMATS: Final = frozenset(("jpeg", "png", "webp"))
_PICTURES_MAX: Final = 10
_ENDS: Final = frozenset(("image_edit.completed", "image_generation.completed"))
_FILES_MAX: Final = 16
_JSON_BYTES_MAX: Final = 32 * 1024 * 1024
"""Pictures come inside of the JSON; a larger answer is relayed, and charged at its hold."""
_SIGNATURES: Final = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpg"), (b"RIFF", "webp"))


class _Pictures(WithoutLimit):
    """What both have in common: quality and size bound the answer, and it reports its tokens."""

    __slots__ = ()

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol."""
        del body
        return choose(content_type, _usage, lambda: SseMeter(LastEvent(_ENDS, _usage)), _JSON_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Generations(TakesJson, _Pictures):
    """POST /images/generations."""

    name: str = "images.generations"

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol."""
        check_fields(body, "", GENERATION_FIELDS, REFUSED)
        as_text(body.get("prompt"), "prompt")
        pictures = whole(body, "n", 1, _PICTURES_MAX) or 1
        partial = whole(body, "partial_images", 0, 3) or 0
        stream = flag(body, "stream")
        return _plan(provider, self.name, model, body, (pictures, partial), stream=stream, files=0)


@dataclass(frozen=True, slots=True)
class Edits(_Pictures):
    """POST /images/edits, as a form."""

    name: str = "images.edits"
    accept: str = "application/json"

    def file_names(self, form: Form) -> tuple[str, ...]:
        """By the format that the bytes have, not by what the caller called it."""
        return tuple(f"picture.{_format(file.data)}" for file in form.files)

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol."""
        check_fields(body, "", EDIT_FIELDS, REFUSED)
        if model not in _EDITED:
            raise unbounded("model", f"no bound is known for its edits; use {' or '.join(sorted(_EDITED))}")
        as_text(body.get("prompt"), "prompt")
        files = body.files if isinstance(body, Form) else ()
        if not 1 <= len(files) <= _FILES_MAX or any(file.field not in {"image", "image[]", "mask"} for file in files):
            raise invalid("image", f"one to {_FILES_MAX} files are needed, in image, image[] and mask")
        if not all(_format(file.data) for file in files):
            raise invalid("image", "must be PNG, JPEG or WebP")
        numbers = _number(body, "n", 1, _PICTURES_MAX, 1), _number(body, "partial_images", 0, 3, 0)
        stream = form_flag(body, "stream")
        return _plan(provider, self.name, model, body, numbers, stream=stream, files=len(files))


def _plan(
    provider: str, operation: str, model: str, body: Object, numbers: tuple[int, int], *, stream: bool, files: int
) -> CallPlan:
    one_of(body, "quality", _QUALITIES, "no bound is known for it")
    one_of(body, "output_format", _FORMATS, "no bound is known for it")
    largest = _OUTPUT.get(model)
    if largest is None:
        raise unbounded("model", f"no bound is known for its pictures; use one of {', '.join(sorted(_OUTPUT))}")
    pictures, partial = numbers
    if stream and pictures > 1:
        raise invalid("n", "a stream gives one picture; leave n out, or stream")
    one = largest.get(kind_of(body, "quality"), largest["high"]) + partial * _PARTIAL_TOKENS
    return CallPlan(
        provider,
        operation,
        model,
        metered=True,
        stream=stream,
        input_tokens_bound=input_tokens_bound(body, Parts()),
        units_bound=Usage(input_image_tokens=files * _INPUT_TOKENS, output_image_tokens=pictures * one),
    )


def _number(form: Object, field: str, low: int, high: int, default: int) -> int:
    """A whole number that a form carries as text."""
    value = form.get(field)
    if value is None:
        return default
    # Written out, so that the server can read no other: "0000010" is ten to it.
    allowed = {str(number): number for number in range(low, high + 1)}
    if not isinstance(value, str) or value not in allowed:
        raise invalid(field, f"must be a whole number from {low} to {high}")
    return allowed[value]


def _format(data: bytes) -> str:
    return next((name for start, name in _SIGNATURES if data.startswith(start)), "")


def _usage(answer: Object) -> Usage | None:
    return openai_usage(answer.get("usage"), None, prompt="input", completion="output")
