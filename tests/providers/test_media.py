"""Pictures, speech and transcriptions: what bounds them, what is refused, and that the hold covers what is reported."""

import base64
import io
import json
import math
import struct
import wave
from pathlib import Path
from typing import Any

import groq as groq_sdk
import openai
import pytest
from google import genai
from google.genai import types as genai_types
from hypothesis import example, given
from hypothesis import strategies as st
from mistralai.client import Mistral
from tests.fakes.hosts import PROVIDERS
from tests.fakes.vendor_server import VendorServer, serving

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.call import CallPlan, worst_case
from leasehold_broker.domain.price import Usage, cost_micro_usd
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.egress.form_gate import form_boundary, parse_form
from leasehold_broker.ports.provider import Form, FormFile, Json
from leasehold_broker.providers import load_price_book
from leasehold_broker.providers.audio_length import seconds_max
from leasehold_broker.providers.audio_packets import FLAC_HEADERS_MAX, opus_seconds
from leasehold_broker.providers.openai import OpenAI

OPENAI = OpenAI()
TOKEN = "lht_" + "a" * 40
VECTORS = Path(__file__).parents[1] / "vectors"
BOOK = load_price_book()
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
DRAW: dict[str, Json] = {"model": "gpt-image-1", "prompt": "A cat"}
SPEAK: dict[str, Json] = {"model": "tts-1", "input": "Hello", "voice": "alloy"}


def wav(seconds: float, rate: int = 16_000, channels: int = 1) -> bytes:
    """Silence, as the standard library writes it."""
    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(bytes(2 * channels * int(seconds * rate)))
    return target.getvalue()


def mp3(frames: int, head: bytes = b"\xff\xfb\x90\x00", size: int = 417) -> bytes:
    """Frames of 128 kbit/s at 44.1 kHz, 1,152 samples each."""
    return (head + bytes(size - 4)) * frames


def sound(name: str) -> bytes:
    """A file that a real encoder has written."""
    return (VECTORS / "sound" / name).read_bytes()


FLAC, OPUS = sound("tone_16k_2s.flac"), sound("tone_16k_3s3.ogg")


def crc8(data: bytes) -> int:
    """FLAC's, bit by bit."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ (0x07 if value & 0x80 else 0)) & 0xFF
    return value


def flac(file_rate: int, told_rate: int, frames: int) -> bytes:
    """The heads of frames of 32,768 samples, which tell another rate than the file does."""
    head = b"\xff\xf8\xfe\x08\0" + (told_rate // 10).to_bytes(2)
    info = bytes(10) + (file_rate << 44 | 15 << 36).to_bytes(8) + bytes(16)
    return b"fLaC\x80\0\0\x22" + info + (head + bytes([crc8(head)])) * frames


def sound_form(data: bytes, **fields: Json) -> Form:
    """A transcription of this sound."""
    return Form({"model": "whisper-1", **fields}, (FormFile("file", data),))


def picture_form(count: int = 1, **fields: Json) -> Form:
    """An edit of so many pictures."""
    return Form(
        {"model": "gpt-image-1", "prompt": "A hat", **fields}, tuple(FormFile("image[]", PNG) for _ in range(count))
    )


def planned(path: str, body: dict[str, Json]) -> CallPlan:
    """The plan of this request."""
    return OPENAI.plan(OPENAI.route("POST", path, ""), {}, body, 0)


def held(plan: CallPlan) -> int:
    """What is held for it, by the table's prices."""
    assert plan.model is not None
    return worst_case(plan, BOOK.price("openai", plan.model), 0, NO_CAPS).amounts.cost_micro_usd


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        # 44 bytes of headers and 32,000 a second
        (wav(1), 2),
        (wav(10), 11),
        (wav(2, 8_000, 2), 3),
        # 100 * 1152 / 44100 = 2.6
        (mp3(100), 3),
        (b"ID3\x04\0\0\0\0\0\x05hello" + mp3(100), 3),
        (mp3(100) + b"TAG" + bytes(125), 3),
        # MPEG 2, 8 kbit/s at 16 kHz: 576 samples in 36 bytes
        (mp3(100, b"\xff\xf3\x18\x00", 36), 4),
        # the last frame is cut short, and counted whole
        (mp3(100)[:-200], 3),
        # as libsndfile and libopus write them: two seconds at 16 kHz, ninety of silence in 2 kB, 3.3 of Opus
        (FLAC, 2),
        (sound("silence_8k_90s.flac"), 90),
        (flac(8_000, 8_000, 10), 41),
        (flac(8_000, 655_350, 10), 41),
        (flac(655_350, 8_000, 10), 41),
        (OPUS, 4),
        # a frame of FLAC that is there twice counts twice, whatever the file says of its length
        (FLAC + FLAC[FLAC.index(b"\xff\xf8") :], 4),
    ],
)
def test_seconds_are_read_from_the_bytes(data: bytes, seconds: int) -> None:
    """Computed by hand from samples and rates, rounded up."""
    assert seconds_max(data) == seconds


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"OggS" + bytes(100),
        b"fLaC" + bytes(100),
        sound("vorbis.ogg"),
        # an Opus stream that is cut, damaged, doubled, followed by something, or begins in the middle
        OPUS[:-1],
        OPUS[:-20] + b"x" + OPUS[-19:],
        OPUS + OPUS,
        OPUS + bytes(4),
        OPUS[OPUS.index(b"OggS", 4) :],
        # a FLAC file whose first block is no description, or describes no rate
        FLAC[:4] + b"\x81" + FLAC[5:],
        FLAC[:18] + bytes(3) + FLAC[21:],
        b"RIFF\0\0\0\0WAVE",
        # another coding, a rate of one sample a second, bytes a second that do not fit, two formats
        wav(1).replace(struct.pack("<H", 1) + struct.pack("<H", 1), struct.pack("<H", 0x11) + struct.pack("<H", 1)),
        wav(1).replace(struct.pack("<I", 16_000), struct.pack("<I", 1)),
        wav(1).replace(struct.pack("<I", 32_000), struct.pack("<I", 1)),
        wav(1).replace(b"data", b"fmt \x10\0\0\0" + wav(1)[20:36] + b"data", 1),
        # an MP3 that turns into something else, free format, a layer II frame, a changed rate, a tag without frames
        mp3(10) + b"OggS" + bytes(100),
        mp3(3, b"\xff\xfb\x00\x00"),
        mp3(3, b"\xff\xfd\x90\x00"),
        mp3(3) + mp3(3, b"\xff\xfb\x94\x00", 384),
        b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + mp3(3),
        b"ID3\x04\0\0\0\0\0\x05hello" + b"fLaC" + bytes(100),
    ],
)
def test_what_could_sound_longer_is_not_guessed(data: bytes) -> None:
    """Other formats, contradictions, two readings: no bound, and the request is refused with a way out."""
    assert seconds_max(data) is None
    with pytest.raises(Refusal, match="send WAV") as caught:
        planned("/v1/audio/transcriptions", sound_form(data))
    assert caught.value.reason is Reason.COST_UNBOUNDED


@given(st.integers(1, 60), st.sampled_from([8_000, 16_000, 44_100]), st.integers(1, 2))
def test_no_wav_sounds_longer_than_its_bound(tenths: int, rate: int, channels: int) -> None:
    """B12: against the standard library's own reader."""
    data = wav(tenths / 10, rate, channels)
    with wave.open(io.BytesIO(data)) as sound:
        real = sound.getnframes() / sound.getframerate()
    bound = seconds_max(data)
    assert bound is not None
    assert real <= bound <= math.ceil(real) + 1


@given(st.binary(max_size=300), st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"ID3\x03\0\0\0\0\0\0", b"\xff\xfb\x90\0"]))
@example(b"\xff\xf8\x81\x08" * 50, FLAC[:42])
def test_any_bytes_have_a_length_or_none(tail: bytes, start: bytes) -> None:
    """No bytes make the reader fail, and none are long without being large."""
    seconds = seconds_max(start + tail)
    assert seconds is None or seconds <= 1 + len(start + tail)


def test_a_transcription_by_the_second_is_held_and_charged() -> None:
    """11 seconds at 100 micro-USD; the report of 9.4 begun seconds costs 10 of them."""
    plan = planned("/v1/audio/transcriptions", sound_form(wav(10)))
    assert (plan.units_bound, held(plan)) == (Usage(audio_seconds=11), 1_100)
    route = OPENAI.route("POST", "/v1/audio/transcriptions", "")
    meter = OPENAI.meter(route, plan, sound_form(wav(10)), "application/json")
    meter.feed(b'{"text": "", "usage": {"type": "duration", "seconds": 9.4}}')
    meter.finish()
    price = BOOK.price("openai", "whisper-1")
    assert price is not None
    assert (meter.usage, cost_micro_usd(meter.usage or Usage(), price)) == (Usage(audio_seconds=10), 1_000)


@pytest.mark.parametrize(("seconds", "billed"), [(9, 10), (3, 10), (14, 15)])
def test_groq_bills_ten_seconds_at_least(seconds: int, billed: int) -> None:
    """A shorter sound is held, and charged, as ten; the answer says how long it was only when asked to be verbose."""
    groq = PROVIDERS["groq"]
    route = groq.route("POST", "/openai/v1/audio/transcriptions", "")
    form = sound_form(wav(seconds), model="whisper-large-v3", response_format="verbose_json")
    plan = groq.plan(route, {}, form, 0)
    assert plan.units_bound == Usage(audio_seconds=billed)
    meter = groq.meter(route, plan, form, "application/json")
    meter.feed(b'{"text": "", "duration": %d.5}' % (seconds - 1))
    meter.finish()
    assert meter.usage == Usage(audio_seconds=max(10, seconds))
    mistral = PROVIDERS["mistral"]
    told_apart = sound_form(wav(1), model="voxtral-mini-latest", diarize="true")
    with pytest.raises(Refusal, match="no price is known"):
        mistral.plan(mistral.route("POST", "/v1/audio/transcriptions", ""), {}, told_apart, 0)
    with pytest.raises(Refusal, match="send the file"):
        groq.plan(route, {}, sound_form(wav(1), model="whisper-large-v3", url="https://x/y.wav"), 0)


def test_the_sdks_of_groq_and_mistral_send_sound() -> None:
    """Both send a FLAC file as a form: it goes upstream under our name, and what they answer is counted."""
    with serving(VendorServer(PROVIDERS["groq"])) as server:
        asker = groq_sdk.Groq(base_url=server.base_url.removesuffix("/openai/v1"), api_key=TOKEN, max_retries=0)
        server.answer = b'{"text": "a", "duration": 2.0}'
        asked: dict[str, Any] = {"model": "whisper-large-v3", "response_format": "verbose_json"}
        assert asker.audio.transcriptions.create(file=("mine.flac", FLAC), **asked).text == "a"
        assert server.last.plan is not None
        assert server.last.plan.units_bound == Usage(audio_seconds=10)
        assert server.last.upstream is not None
        assert b'filename="sound.flac"' in server.last.upstream.body
        server.answer, server.content_type = b"RIFF", "audio/wav"
        voice: dict[str, Any] = {"voice": "tara", "model": "canopylabs/orpheus-v1-english"}
        assert asker.audio.speech.create(input="Hello", **voice, response_format="wav").read() == b"RIFF"
        assert server.last.meter is not None
        assert server.last.meter.usage == Usage(input_characters=5)
        asker.close()
    with (
        serving(VendorServer(PROVIDERS["mistral"])) as server,
        Mistral(api_key=TOKEN, server_url=server.base_url.removesuffix("/v1")) as other,
    ):
        server.answer = (VECTORS / "mistral" / "transcription.json").read_bytes()
        server.answer = json.loads(server.answer)["answer"][0].encode()
        heard = other.audio.transcriptions.complete(
            model="voxtral-mini-latest", file={"content": OPUS, "file_name": "a.ogg"}
        )
        assert heard.usage.prompt_audio_seconds == 203
        assert server.last.meter is not None
        assert server.last.meter.usage == Usage(audio_seconds=203)
        assert server.last.plan is not None
        assert server.last.plan.units_bound == Usage(audio_seconds=4)


def test_a_transcription_by_token_is_held_at_its_context() -> None:
    """16,000 tokens of sound at 6, 2,000 of text at 10, and the form's own text at 2.5: more is no longer served."""
    plan = planned("/v1/audio/transcriptions", sound_form(mp3(100), model="gpt-4o-transcribe", stream="true"))
    assert plan.stream
    assert held(plan) == math.ceil(16_000 * 6 + 2_000 * 10 + plan.input_tokens_bound * 2.5)
    with pytest.raises(Refusal, match="1500"):
        planned("/v1/audio/transcriptions", sound_form(mp3(60_000), model="gpt-4o-transcribe"))


def test_speech_is_held_by_the_byte_and_charged_by_the_character() -> None:
    """Five characters of seven bytes; the answer says nothing, and a cut or an error is not an answer."""
    body = {**SPEAK, "input": "Grüße"}
    plan = planned("/v1/audio/speech", body)
    assert (plan.units_bound, held(plan)) == (Usage(input_characters=7), 105)
    route = OPENAI.route("POST", "/v1/audio/speech", "")
    meter = OPENAI.meter(route, plan, body, "audio/mpeg")
    assert (meter.feed(b"ID3"), meter.usage, meter.final) == (b"ID3", None, False)
    assert (meter.finish(), meter.usage, meter.final) == (b"", Usage(input_characters=5), True)
    error = OPENAI.meter(route, plan, body, "application/json")
    error.feed(b'{"error": {}}')
    error.finish()
    assert error.usage is None
    assert dict(OPENAI.request(route, {}, body, None).headers)["accept"] == "*/*"


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 6_240),
        ({"quality": "auto"}, 6_240),
        ({"quality": "low"}, 408),
        ({"quality": "medium", "n": 3}, 3 * 1_584),
        ({"quality": "low", "partial_images": 2, "stream": True}, 408 + 200),
        ({"model": "gpt-image-2", "n": 2}, 2 * 24_576),
    ],
)
def test_a_picture_is_held_by_quality_and_number(fields: dict[str, Json], tokens: int) -> None:
    """The largest size of the quality, times the pictures, and a hundred tokens for each partial one."""
    plan = planned("/v1/images/generations", {**DRAW, **fields})
    assert plan.units_bound == Usage(output_image_tokens=tokens)
    rate = 40 if plan.model == "gpt-image-1" else 30
    dearest = 10 if plan.model == "gpt-image-1" else 8
    assert held(plan) == tokens * rate + plan.input_tokens_bound * dearest


def test_pictures_that_are_edited_count_as_well() -> None:
    """Each of them at its maximum; what goes upstream has our names and the same bytes."""
    one = planned("/v1/images/edits", picture_form(1, quality="low"))
    two = planned("/v1/images/edits", picture_form(2, quality="low", n="2"))
    assert one.units_bound == Usage(input_image_tokens=8_192, output_image_tokens=408)
    assert two.units_bound == Usage(input_image_tokens=16_384, output_image_tokens=816)
    route = OPENAI.route("POST", "/v1/images/edits", "")
    sent = OPENAI.request(route, {}, picture_form(2), None)
    form = parse_form(form_boundary(dict(sent.headers)), sent.body)
    assert (dict(form), form.files) == (dict(picture_form(2)), picture_form(2).files)
    assert sent.body.count(b'filename="picture.png"') == 2


UNBOUNDED: list[tuple[str, dict[str, Json], str]] = [
    ("/v1/images/generations", {**DRAW, "model": "dall-e-3"}, "no bound is known for its pictures"),
    ("/v1/images/generations", {**DRAW, "model": "gpt-image-1.5"}, "no bound is known for its pictures"),
    ("/v1/images/generations", {**DRAW, "quality": "ultra"}, "no bound is known"),
    ("/v1/images/generations", {**DRAW, "response_format": "url"}, "dall-e"),
    ("/v1/images/generations", {**DRAW, "output_format": "gif"}, "no bound is known"),
    ("/v1/images/generations", {**DRAW, "frame_count": 8}, "plain picture"),
    ("/v1/images/edits", picture_form(model="gpt-image-2"), "no bound is known for its edits"),
    ("/v1/audio/speech", {**SPEAK, "model": "gpt-4o-mini-tts"}, "use tts-1"),
    ("/v1/audio/speech", {**SPEAK, "instructions": "Shout"}, "without a bound"),
    ("/v1/audio/transcriptions", sound_form(wav(1), chunking_strategy="auto"), "more than once"),
]
INVALID: list[tuple[str, dict[str, Json]]] = [
    ("/v1/images/generations", {**DRAW, "n": 11}),
    ("/v1/images/generations", {**DRAW, "n": 2, "stream": True}),
    ("/v1/images/generations", {**DRAW, "prompt": None}),
    ("/v1/images/edits", {"model": "gpt-image-1", "prompt": "x"}),
    ("/v1/images/edits", picture_form(0)),
    ("/v1/images/edits", picture_form(1, n="1e3")),
    ("/v1/images/edits", picture_form(1, n=["1", "9"])),
    ("/v1/images/edits", picture_form(1, n="0000010")),
    ("/v1/images/edits", picture_form(1, n="01")),
    ("/v1/images/edits", picture_form(1, n="10" * 3000)),
    ("/v1/images/edits", picture_form(1, n="+1")),
    ("/v1/images/edits", picture_form(1, n="\u0663")),
    ("/v1/images/edits", picture_form(1, partial_images="03")),
    ("/v1/images/edits", picture_form(1, stream="1")),
    ("/v1/audio/transcriptions", sound_form(wav(1), stream="yes")),
    ("/v1/audio/transcriptions", sound_form(wav(1), stream=["false", "true"])),
    ("/v1/images/edits", Form({"model": "gpt-image-1", "prompt": "x"}, (FormFile("image", b"GIF89a"),))),
    ("/v1/audio/speech", {**SPEAK, "input": 5}),
    ("/v1/audio/speech", {**SPEAK, "stream_format": "sse"}),
    ("/v1/audio/transcriptions", Form({"model": "whisper-1"}, ())),
    ("/v1/audio/transcriptions", Form({"model": "whisper-1"}, (FormFile("other", wav(1)),))),
    ("/v1/audio/transcriptions", sound_form(wav(1), model=["whisper-1", "gpt-4o-transcribe"])),
    ("/v1/audio/transcriptions", sound_form(wav(1), hotwords="x")),
]


@pytest.mark.parametrize(("path", "body", "said"), UNBOUNDED)
def test_what_has_no_bound_is_refused_with_a_way_out(path: str, body: dict[str, Json], said: str) -> None:
    """Models that are billed by what they make, and options that make them read twice."""
    with pytest.raises(Refusal, match=said) as caught:
        planned(path, body)
    assert caught.value.reason is Reason.COST_UNBOUNDED


@pytest.mark.parametrize(("path", "body"), INVALID)
def test_what_is_wrong_is_refused(path: str, body: dict[str, Json]) -> None:
    """Numbers out of range, missing or doubled parts, other files."""
    with pytest.raises(Refusal) as caught:
        planned(path, body)
    assert caught.value.reason is Reason.BODY_INVALID


QUALITY = st.sampled_from(["low", "medium", "high"])


@given(QUALITY, st.integers(1, 10), st.integers(0, 10), st.text(max_size=40), st.text(max_size=40))
def test_more_is_never_held_for_less(quality: str, pictures: int, more: int, first: str, second: str) -> None:
    """B11: a longer prompt, another picture, a longer text, a longer sound: the hold never falls."""
    if any("\ud800" <= letter <= "\udfff" for letter in first + second):
        return
    small: dict[str, Json] = {**DRAW, "quality": quality, "prompt": first, "n": pictures}
    large: dict[str, Json] = {**small, "prompt": first + second, "n": min(10, pictures + more)}
    assert held(planned("/v1/images/generations", small)) <= held(planned("/v1/images/generations", large))
    spoken = [planned("/v1/audio/speech", {**SPEAK, "input": text}) for text in (first, first + second)]
    assert held(spoken[0]) <= held(spoken[1])
    heard = [planned("/v1/audio/transcriptions", sound_form(mp3(count))) for count in (pictures, pictures + more)]
    assert held(heard[0]) <= held(heard[1])


@given(QUALITY, st.integers(1, 10), st.data())
def test_the_hold_covers_every_picture_within_the_bound(quality: str, pictures: int, data: Any) -> None:
    """B12: whatever a report within the documented tokens says, it costs no more than the hold."""
    plan = planned("/v1/images/generations", {**DRAW, "quality": quality, "n": pictures})
    each = {"low": 408, "medium": 1_584, "high": 6_240}[quality]
    used = Usage(
        data.draw(st.integers(0, plan.input_tokens_bound)),
        output_image_tokens=sum(data.draw(st.integers(0, each)) for _ in range(pictures)),
    )
    price = BOOK.price("openai", "gpt-image-1")
    assert price is not None
    assert cost_micro_usd(used, price) <= held(plan)


def test_openai_sdk_with_sound_and_pictures() -> None:
    """The SDK's own calls pass: speech, a transcription from a file, a picture and an edit; our names go upstream."""
    with serving(VendorServer(OPENAI)) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="lht_" + "a" * 40, max_retries=0)
        with client:
            server.answer, server.content_type = b"ID3 sound", "audio/mpeg"
            assert client.audio.speech.create(model="tts-1", input="Hello", voice="alloy").content == b"ID3 sound"
            assert server.last.meter is not None
            assert server.last.meter.usage == Usage(input_characters=5)
            server.answer = b'{"text": "Hi", "usage": {"type": "duration", "seconds": 1}}'
            server.content_type = "application/json"
            heard = client.audio.transcriptions.create(
                model="whisper-1", file=("a \u00fc.wav", wav(1)), timestamp_granularities=["word"], language="de"
            )
            assert heard.text == "Hi"
            assert dict(server.last.sent) == {
                "model": "whisper-1",
                "language": "de",
                "timestamp_granularities[]": ["word"],
            }
            assert server.last.upstream is not None
            assert b'filename="sound.wav"' in server.last.upstream.body
            server.answer = b'{"created": 1, "data": [], "usage": {"input_tokens": 5, "output_tokens": 272}}'
            client.images.generate(model="gpt-image-1", prompt="A cat", quality="low", size="1024x1024")
            assert server.last.meter is not None
            assert server.last.meter.usage == Usage(5, output_tokens=272)
            client.images.edit(model="gpt-image-1", prompt="A hat", image=[("a.png", PNG), ("b.png", PNG)], n=2)
            assert dict(server.last.sent) == {"model": "gpt-image-1", "prompt": "A hat", "n": "2"}
            assert [file.field for file in server.last.sent.files] == ["image[]", "image[]"]
            with pytest.raises(openai.PermissionDeniedError, match="send WAV"):
                client.audio.transcriptions.create(model="whisper-1", file=("a.ogg", b"OggS"))


SOUNDS = {"audio/wav": wav(3), "audio/mpeg": mp3(100), "audio/flac": FLAC, "audio/ogg": OPUS}


def hear(data: bytes, kind: str, model: str = "gemini-2.5-flash") -> CallPlan:
    """The plan of a request to Gemini with this sound in it."""
    gemini = PROVIDERS["gemini"]
    route = gemini.route("POST", f"/v1beta/models/{model}:generateContent", "")
    part: Json = {"inlineData": {"mimeType": kind, "data": base64.urlsafe_b64encode(data).decode()}}
    limits: Json = {"maxOutputTokens": 100}
    return gemini.plan(route, {}, {"contents": [{"parts": [part, {"text": "?"}]}], "generationConfig": limits}, 0)


@pytest.mark.parametrize(
    ("kind", "seconds"), [("audio/wav", 4), ("audio/mpeg", 3), ("audio/flac", 2), ("audio/ogg", 4)]
)
def test_gemini_hears_32_tokens_a_second(kind: str, seconds: int) -> None:
    """Seconds from the bytes; the sound costs its own rate, and its base64 is no text."""
    plan = hear(SOUNDS[kind], kind)
    assert plan.units_bound == Usage(input_audio_tokens=32 * seconds)
    assert plan.input_tokens_bound < 500
    price = BOOK.price("gemini", "gemini-2.5-flash")
    micro = plan.input_tokens_bound * 0.3 + 32 * seconds * 1.0 + 100 * 2.5
    assert worst_case(plan, price, 0, NO_CAPS).amounts.cost_micro_usd == math.ceil(micro)


@pytest.mark.parametrize(
    ("data", "kind"),
    [(wav(1), "audio/mp3"), (FLAC, "audio/wav"), (sound("vorbis.ogg"), "audio/ogg"), (wav(1), "audio/aac")],
)
def test_gemini_hears_nothing_that_cannot_be_told(data: bytes, kind: str) -> None:
    """A type that the bytes are not, and formats whose length is not read: refused."""
    with pytest.raises(Refusal) as caught:
        hear(data, kind)
    assert caught.value.reason is Reason.COST_UNBOUNDED


def test_sound_without_a_price_is_refused() -> None:
    """Gemini 2.5 Pro has no rate of sound in the table: nothing is held, nothing is sent."""
    plan = hear(wav(1), "audio/wav", "gemini-2.5-pro")
    with pytest.raises(Refusal, match="input_audio") as caught:
        worst_case(plan, BOOK.price("gemini", "gemini-2.5-pro"), 0, NO_CAPS)
    assert caught.value.reason is Reason.PRICE_UNKNOWN


def test_googles_sdk_sends_sound() -> None:
    """As its own part of bytes; what it reports as sound is counted as such."""
    with serving(VendorServer(PROVIDERS["gemini"])) as server:
        client = genai.Client(api_key=TOKEN, http_options=genai_types.HttpOptions(base_url=server.base_url))
        server.answer = json.loads((VECTORS / "gemini" / "json_audio.json").read_text())["answer"][0].encode()
        part = genai_types.Part.from_bytes(data=FLAC, mime_type="audio/flac")
        client.models.generate_content(model="gemini-2.5-flash", contents=["What is this?", part])
        assert server.last.plan is not None
        assert server.last.plan.units_bound == Usage(input_audio_tokens=64)
        assert server.last.meter is not None
        assert server.last.meter.usage == Usage(100, output_tokens=5, input_audio_tokens=900)
        client.close()


def test_a_file_that_is_all_headers_is_given_up() -> None:
    """What is looked at has an end, so that a hostile file stops the process for half a second at most."""
    assert seconds_max(FLAC[:42] + b"\xff\xf8" * 20_000) is None
    assert seconds_max(FLAC[:42] + b"\xff\xf8" * (FLAC_HEADERS_MAX + 1)) is None
    repeated = FLAC[:42] + FLAC[FLAC.index(b"\xff\xf8") :] * 100
    assert seconds_max(repeated) == 200
    page = OPUS[OPUS.rindex(b"OggS") :]
    assert opus_seconds(OPUS + page * 3) is None
