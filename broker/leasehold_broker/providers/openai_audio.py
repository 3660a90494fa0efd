"""OpenAI's speech and transcriptions, where their cost has a bound. Pure.

Speech is billed by the character at two models; the others are billed by what they say, which nothing limits. A
transcription is billed by the second, or by tokens of a context that is no larger than documented; how long a sound
can be is read from its bytes. Source of the shapes: openai 3.54.0, types/audio/.
"""

from dataclasses import dataclass
from typing import Final

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Form, Meter
from leasehold_broker.providers.audio_length import audio_format, seconds_max
from leasehold_broker.providers.bounds import Parts, input_tokens_bound
from leasehold_broker.providers.checks import Object, as_text, check_fields, invalid, kind_of, unbounded
from leasehold_broker.providers.last_event import LastEvent
from leasehold_broker.providers.meters import JsonMeter, KnownMeter, SseMeter, choose, media_type
from leasehold_broker.providers.operation import TakesJson
from leasehold_broker.providers.usage import transcript_usage

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
_BY_CHARACTER: Final = ("tts-1",)
_CONTEXT_BILLED: Final = "gpt-4o"
_CONTEXT_TOKENS: Final = 16_000
"""Of the models that are billed by token; documented, as is their longest answer and the longest sound they take."""
_ENDS: Final = frozenset(("transcript.text.done",))
_OUTPUT_TOKENS: Final = 2_000
_TOKEN_SECONDS_MAX: Final = 1_500
_SPEECH_TYPES: Final = ("audio/", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Speech(TakesJson):
    """POST /audio/speech."""

    name: str = "audio.speech"
    accept: str = "*/*"  # type: ignore[misc] # sound comes out

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol. A character is at least one byte of its text."""
        check_fields(body, "", SPEECH_FIELDS, SPEECH_REFUSED)
        if not model.startswith(_BY_CHARACTER):
            raise unbounded("model", "it is billed by what it says, which nothing limits; use tts-1 or tts-1-hd")
        text = as_text(body.get("input"), "input")
        if kind_of(body, "stream_format") == "sse":
            raise invalid("stream_format", "tts-1 and tts-1-hd answer with audio; leave it out")
        bound = Usage(input_characters=len(text.encode()))
        return CallPlan(provider, self.name, model, metered=True, stream=False, units_bound=bound)

    def sent(self, body: Object, output_tokens_limit: int | None) -> Object:
        """See the protocol."""
        del output_tokens_limit  # it has no output to limit
        return body

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol. The answer says nothing of its cost: it is the characters of the request."""
        text = body.get("input")
        if isinstance(text, str) and media_type(content_type).startswith(_SPEECH_TYPES):
            return KnownMeter(Usage(input_characters=len(text)))
        return JsonMeter(lambda _: None)


@dataclass(frozen=True, slots=True)
class Transcription:
    """POST /audio/transcriptions and /audio/translations."""

    name: str = "audio.transcriptions"
    accept: str = "*/*"

    def file_names(self, form: Form) -> tuple[str, ...]:
        """By the format that the bytes have, not by what the caller called it."""
        return tuple(f"sound.{audio_format(file.data)}" for file in form.files)

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol."""
        check_fields(body, "", TRANSCRIPT_FIELDS, TRANSCRIPT_REFUSED)
        if not isinstance(body, Form) or [file.field for file in body.files] != ["file"]:
            raise invalid("file", "one file is needed, and no other")
        seconds = seconds_max(body.files[0].data)
        if seconds is None:
            raise unbounded(
                "file",
                "how long it sounds cannot be told from its bytes; send WAV with plain samples, or MP3 that is frames "
                "from end to end",
            )
        by_token = model.startswith(_CONTEXT_BILLED)
        if by_token and seconds > _TOKEN_SECONDS_MAX:
            raise invalid("file", f"sounds for {seconds} seconds; this model takes {_TOKEN_SECONDS_MAX}; send pieces")
        tokens = Usage(input_audio_tokens=_CONTEXT_TOKENS, output_tokens=_OUTPUT_TOKENS)
        return CallPlan(
            provider,
            self.name,
            model,
            metered=True,
            stream=body.get("stream") == "true",
            input_tokens_bound=input_tokens_bound(body, Parts()) if by_token else 0,
            units_bound=tokens if by_token else Usage(audio_seconds=seconds),
        )

    def sent(self, body: Object, output_tokens_limit: int | None) -> Object:
        """See the protocol."""
        del output_tokens_limit  # it has no output to limit
        return body

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol. An answer of plain text or subtitles reports nothing: the hold is charged."""
        del body
        return choose(content_type, _usage, lambda: SseMeter(LastEvent(_ENDS, _usage)))


def _usage(answer: Object) -> Usage | None:
    return transcript_usage(answer.get("usage"))
