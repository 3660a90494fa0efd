"""Speech and transcriptions as OpenAI and hosts of its dialect have them, where their cost has a bound. Pure.

Speech is billed by the character at some models; the others are billed by what they say, which nothing limits. A
transcription is billed by the second, or by tokens of a context that is no larger than documented; how long a sound
can be is read from its bytes. Source of the shapes: openai 3.54.0, types/audio/.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Form, Meter
from leasehold_broker.providers.audio_length import audio_format, seconds_max
from leasehold_broker.providers.bounds import Parts, input_tokens_bound
from leasehold_broker.providers.checks import Object, as_text, check_fields, form_flag, invalid, kind_of, unbounded
from leasehold_broker.providers.last_event import LastEvent
from leasehold_broker.providers.meters import JsonMeter, KnownMeter, SseMeter, choose, media_type
from leasehold_broker.providers.operation import TakesJson, WithoutLimit
from leasehold_broker.providers.usage_hosts import transcript_usage

SPEECH_FIELDS: Final = frozenset(("input", "model", "response_format", "speed", "stream_format", "voice"))
SPEECH_REFUSED: Final = {"instructions": "the models that take it are billed by what they say, without a bound"}
TRANSCRIPT_FIELDS: Final = frozenset(
    (
        "file",
        "include[]",
        "keywords[]",
        "language",
        "languages[]",
        "model",
        "prompt",
        "response_format",
        "stream",
        "temperature",
        "timestamp_granularities[]",
    )
)
TRANSCRIPT_REFUSED: Final = {
    "chunking_strategy": "a sound that is cut into pieces is read more than once; leave it out",
    "known_speaker_names[]": "voices to compare with are sound of their own, which is not bounded; leave them out",
    "known_speaker_references[]": "voices to compare with are sound of their own, which is not bounded; leave them out",
}
_CONTEXT_TOKENS: Final = 16_000
"""Of the models that are billed by token; documented, as is their longest answer and the longest sound they take."""
_ENDS: Final = frozenset(("transcript.text.done",))
_OUTPUT_TOKENS: Final = 2_000
_TOKEN_SECONDS_MAX: Final = 1_500
_SPEECH_TYPES: Final = ("audio/", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Speech(TakesJson, WithoutLimit):
    """POST /audio/speech; `by_character`: how the names of models begin that are billed so."""

    by_character: str = "tts-1"
    fields: frozenset[str] = SPEECH_FIELDS
    name: str = "audio.speech"
    accept: str = "*/*"  # type: ignore[misc] # sound comes out

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol. A character is at least one byte of its text."""
        check_fields(body, "", self.fields, SPEECH_REFUSED)
        if not model.startswith(self.by_character):
            raise unbounded("model", f"it is billed by what it says, which nothing limits; use {self.by_character}...")
        text = as_text(body.get("input"), "input")
        if kind_of(body, "stream_format") == "sse":
            raise invalid("stream_format", "models that are billed by the character answer with audio; leave it out")
        bound = Usage(input_characters=len(text.encode()))
        return CallPlan(provider, self.name, model, metered=True, stream=False, units_bound=bound)

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol. The answer says nothing of its cost: it is the characters of the request."""
        text = body.get("input")
        if isinstance(text, str) and media_type(content_type).startswith(_SPEECH_TYPES):
            return KnownMeter(Usage(input_characters=len(text)))
        return JsonMeter(lambda _: None)


@dataclass(frozen=True, slots=True)
class Transcription(WithoutLimit):
    """POST /audio/transcriptions and /audio/translations.

    Args:
        name: as in scopes.
        fields: of the form, that are sent on.
        refused: with the reason.
        off: of these fields, those that have to be false: no price is known for what they switch on.
        by_token: how the names of models begin that are billed by token.
        seconds_min: what a shorter sound is billed as.
        read: usage of an answer, or of the event that ends a stream.
        ends: types of these events.
    """

    name: str = "audio.transcriptions"
    fields: frozenset[str] = TRANSCRIPT_FIELDS
    refused: Mapping[str, str] = field(default_factory=lambda: TRANSCRIPT_REFUSED)
    off: frozenset[str] = frozenset()
    by_token: tuple[str, ...] = ("gpt-4o",)
    seconds_min: int = 0
    read: Callable[[Object], Usage | None] = lambda answer: transcript_usage(answer.get("usage"))
    ends: frozenset[str] = _ENDS
    accept: str = "*/*"

    def file_names(self, form: Form) -> tuple[str, ...]:
        """By the format that the bytes have, not by what the caller called it."""
        return tuple(f"sound.{audio_format(file.data)}" for file in form.files)

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol."""
        check_fields(body, "", self.fields, self.refused)
        for name in self.off & body.keys():
            if body[name] not in ("false", "False"):
                raise unbounded(name, "no price is known for it; leave it out")
        if not isinstance(body, Form) or [file.field for file in body.files] != ["file"]:
            raise invalid("file", "one file is needed, and no other")
        seconds = seconds_max(body.files[0].data)
        if seconds is None:
            raise unbounded(
                "file",
                "how long it sounds cannot be told from its bytes; send WAV with plain samples, FLAC, Opus in Ogg, or "
                "MP3 that is frames from end to end",
            )
        by_token = model.startswith(self.by_token)
        if by_token and seconds > _TOKEN_SECONDS_MAX:
            raise invalid("file", f"sounds for {seconds} seconds; this model takes {_TOKEN_SECONDS_MAX}; send pieces")
        tokens = Usage(input_audio_tokens=_CONTEXT_TOKENS, output_tokens=_OUTPUT_TOKENS)
        return CallPlan(
            provider,
            self.name,
            model,
            metered=True,
            stream=form_flag(body, "stream"),
            input_tokens_bound=input_tokens_bound(body, Parts()) if by_token else 0,
            units_bound=tokens if by_token else Usage(audio_seconds=max(seconds, self.seconds_min)),
        )

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol. An answer of plain text or subtitles reports nothing: the hold is charged."""
        del body
        return choose(content_type, self.read, lambda: SseMeter(LastEvent(self.ends, self.read)))
