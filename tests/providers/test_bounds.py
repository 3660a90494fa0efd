"""The input bound: sound for every tokenizer that can be run here, monotone, and for every part."""

import base64
import os
import time
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.provider import Route
from leasehold_broker.providers.anthropic import Anthropic
from leasehold_broker.providers.anthropic_body import IMAGE_TOKENS_MAX
from leasehold_broker.providers.bounds import NFKC_FACTOR, canonical, text_tokens_bound
from leasehold_broker.providers.openai import OpenAI

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)
MESSAGES = Route("messages", "POST", None, "/v1/messages", takes_body=True)
CHAT = Route("chat.completions", "POST", None, "/v1/chat/completions", takes_body=True)


def messages_bound(*content: Any) -> int:
    """The bound of an Anthropic request with these contents."""
    body = {
        "model": "claude-sonnet-5",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": entry} for entry in content],
    }
    return Anthropic().plan(MESSAGES, {}, body, 0).input_tokens_bound


@given(TEXT)
def test_bound_covers_bytes_and_normal_forms(text: str) -> None:
    """No fewer than the bytes of the text, nor of its NFKC or NFC form: one token may cover as little as one byte."""
    bound = messages_bound(text)
    for form in ("NFC", "NFKC"):
        assert bound >= len(unicodedata.normalize(form, text).encode())
    assert bound >= len(text.encode())


def test_a_character_that_nfkc_expands() -> None:
    """The worst character of NFKC, which made 30 bytes into 150 tokens, is covered."""
    assert text_tokens_bound(("\ufdfa" * 10).encode()) == len(unicodedata.normalize("NFKC", "\ufdfa" * 10).encode())
    assert text_tokens_bound(b"abc") == 3


MARKED = st.text(
    st.sampled_from("ea각ᄀ\u1161\u11a8éệᾂ\u1f82\u0301\u0323\u0345\u0344\u0308\u3099か\u302a㌀㈝\u0f73ﾞ…ﬁ"), max_size=60
)


@given(MARKED)
def test_bound_covers_accents_that_are_sorted(text: str) -> None:
    """A mark that is sorted between a letter and its accent makes the normal form longer than its parts; covered."""
    assert text_tokens_bound(text.encode()) >= len(unicodedata.normalize("NFKC", text).encode())


def test_every_character_stays_within_the_factor() -> None:
    """No character of Unicode grows by more than the factor."""
    letters = [chr(number) for number in range(0x110000) if not 0xD800 <= number < 0xE000]
    grown = max(len(unicodedata.normalize("NFKD", each).encode()) / len(each.encode()) for each in letters)
    assert grown == NFKC_FACTOR


@pytest.mark.parametrize("text", ["naïve café …", "한국어 텍스트 ㈜", "हिन्दी में …", "שָׁלוֹם", "e\u0301"])
def test_the_bound_of_what_people_write_is_close(text: str) -> None:
    """Ordinary text in any script is counted by the larger of its two byte counts, not by a worst case."""
    larger = max(len(text.encode()), len(unicodedata.normalize("NFKC", text).encode()))
    assert larger == text_tokens_bound(text.encode())


@pytest.mark.parametrize(
    "text", ["\u0301\u0323" * 250_000, "\ufdfa" * 300_000, "".join(map(chr, range(0x10000, 0x70000)))]
)
def test_hostile_text_takes_no_longer_than_other_text(text: str) -> None:
    """Accents out of order, expanding characters, too many characters: linear in the size (it took hours)."""
    encoded = text.encode()
    began = time.thread_time()
    assert len(encoded) <= text_tokens_bound(encoded) <= NFKC_FACTOR * len(encoded)
    assert time.thread_time() - began < 10.0  # of this thread alone: what else the machine does is not counted


@given(TEXT, TEXT)
def test_longer_is_never_cheaper(first: str, second: str) -> None:
    """B11: another message never lowers the bound."""
    assert messages_bound(first) < messages_bound(first, second)


def test_tiktoken_never_exceeds_the_bound() -> None:
    """Against the vendor's own tokenizer, where it and its ranks are on this machine."""
    ranks = os.environ.get("TIKTOKEN_CACHE_DIR", "")
    if not Path(ranks).is_dir() or not ranks:
        pytest.skip("needs TIKTOKEN_CACHE_DIR with the ranks of o200k_base: no test may download them")
    tiktoken = pytest.importorskip("tiktoken")
    encoding = tiktoken.get_encoding("o200k_base")
    for text in ("hello world", "\ufdfa" * 30, "🤷🏽‍♀️" * 20, "日本語" * 50, "\x00\x01" * 40):
        assert len(encoding.encode(text, disallowed_special=())) <= messages_bound(text)


def test_images_count_by_their_maximum_not_by_their_bytes() -> None:
    """A large inline image adds its maximum; its base64 is left out."""
    small, large = (base64.b64encode(bytes(size)).decode() for size in (30, 300_000))

    def image(data: str) -> list[Any]:
        return [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}]

    assert messages_bound(image(small)) == messages_bound(image(large))
    assert IMAGE_TOKENS_MAX <= messages_bound(image(small)) <= IMAGE_TOKENS_MAX + 400
    url = f"data:image/png;base64,{small}"
    body: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": []}]}
    body["messages"][0]["content"] = [{"type": "image_url", "image_url": {"url": url}}]
    assert OpenAI().plan(CHAT, {}, body, 0).input_tokens_bound >= 48_169


def test_opaque_text_counts_for_more_than_its_length() -> None:
    """A signature stands for reasoning that may be longer than itself."""
    thinking = {"type": "thinking", "thinking": "", "signature": "A" * 1000}
    assert messages_bound([thinking]) >= 4000


def test_numbers_in_exponent_form_may_be_written_out() -> None:
    """1e300 is five bytes here and may be 301 digits to the model."""
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1e300, "y": [1e-300]}}
    assert messages_bound([use]) >= 602


def test_values_without_a_form_are_refused() -> None:
    """A lone surrogate, as text or as a name, is the caller's mistake, not a crash."""
    for value in ("\ud800", {"\udfff": 1}):
        with pytest.raises(Refusal) as caught:
            canonical({"x": value})
        assert caught.value.reason is Reason.BODY_INVALID


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
        max_leaves=20,
    )
)
def test_canonical_says_the_same(value: Any) -> None:
    """What is sent parses to what was checked, and is always the same bytes."""
    assert msgspec.json.decode(canonical(value)) == value
    assert canonical(value) == canonical(msgspec.json.decode(canonical(value)))
