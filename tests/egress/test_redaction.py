"""An echo of the key, however a provider writes it and however the network cuts it, is not relayed."""

import base64
import json
import random
from collections.abc import Callable
from urllib.parse import quote

import pytest

from leasehold_broker.domain.secret import Secret
from leasehold_broker.egress.redaction import Redactor

KEYS = (b"sk-ant-api03-Zq8_Lw2-Vt7xR0bKcN5pYdQ", b"AbC+/dEfGhIjKlMnOp/QrStUv+WxYz012==", b'{"a":"q\\uote\\\\d"}&<k%zz>')


def for_url(text: bytes) -> bytes:
    """With what is reserved in a URL escaped."""
    return quote(text.decode(), safe="").encode()


def for_json(text: bytes) -> bytes:
    """As the inside of a JSON string, by a writer that escapes slashes."""
    return json.dumps(text.decode())[1:-1].replace("/", "\\/").encode()


def each(shape: str) -> Callable[[bytes], bytes]:
    """With every character escaped in this shape."""
    return lambda text: "".join(shape.format(byte) for byte in text).encode()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "backwards": lambda text: text[::-1],
    "hex": lambda text: text.hex().encode(),
    "HEX": lambda text: text.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64 after one": lambda text: base64.b64encode(b":" + text + b" of the caller"),
    "base64 after two": lambda text: base64.b64encode(b"u:" + text + b"!"),
    "base64 for names": lambda text: base64.urlsafe_b64encode(b"Bearer " + text),
    "base64 in a URL": lambda text: for_url(base64.b64encode(b"user:" + text)),
    "URL": for_url,
    "URL, twice": lambda text: for_url(for_url(text)),
    "URL, every character": each("%{:02x}"),
    "JSON": for_json,
    "JSON, every character": each("\\u{:04x}"),
    "JSON, every character, twice": lambda text: for_json(each("\\u{:04X}")(text)),
    "program": each("\\x{:02x}"),
    "HTML, decimal": each("&#{};"),
    "HTML, hexadecimal": each("&#x{:X};"),
}
"""How a provider may write the key."""


def relayed(key: bytes, pieces: list[bytes]) -> bytes:
    """What the caller sees of an answer that comes in these pieces."""
    redactor = Redactor(Secret(key))
    shown = b"".join(map(redactor.feed, pieces))
    return shown + redactor.flush()


def cut(text: bytes, chance: random.Random) -> list[bytes]:
    """The text in pieces."""
    places = sorted(chance.sample(range(len(text) + 1), min(len(text), chance.randint(0, 12))))
    return [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.mark.parametrize("key", KEYS, ids=["usual", "base64", "odd"])
@pytest.mark.parametrize("word", CODINGS)
def test_no_coding_brings_the_key_out(word, key):
    """In every coding, alone, in an error and in an event, cut anywhere: a few bits of the key are left at most."""
    chance = random.Random(f"{word}{key!r}")
    echo = CODINGS[word](key)
    for before, after in (
        (b"", b""),
        (b'{"error":"bad key: ', b'"}'),
        (b"data: x\\n%20 ", b"\n\n"),
        (b"&\\u00e9 ", b" \\"),
    ):
        answer = before + echo + after
        splits = [[answer], [bytes((byte,)) for byte in answer], *(cut(answer, chance) for _ in range(12))]
        for pieces in splits:
            shown = relayed(key, pieces)
            assert len(shown) == len(answer)
            assert shown.startswith(before)
            assert shown.endswith(after)
            left = bytes(byte for byte in shown[len(before) : len(shown) - len(after)] if byte != ord("*"))
            assert len(left) < len(echo) / 5 + (26 if word.startswith("base64") else 0), pieces


@pytest.mark.parametrize("key", KEYS, ids=["usual", "base64", "odd"])
def test_everything_else_comes_through(key):
    """Text that is made of the same characters, escapes and beginnings is relayed to the byte, and none is kept."""
    chance = random.Random(repr(key))
    parts = [CODINGS[word](key)[:8] for word in CODINGS]
    parts += [
        b"\\u00e9",
        b"\\n",
        b"%20",
        b"&#38;",
        b"&amp;",
        b"\\\\",
        b'\\"',
        b"%",
        b"\xe4\xb8\xad",
        b"A",
        b" ",
        b"\n\n",
    ]
    for _ in range(200):
        text = b"".join(chance.choices(parts, k=chance.randint(1, 30))) + b"."
        assert relayed(key, cut(text, chance)) == text


def test_most_of_a_key_at_the_end_is_not_shown():
    """An answer that breaks off within the key shows no more of it than its beginning."""
    for word, coding in CODINGS.items():
        echo = coding(KEYS[0])
        if not word.startswith("base64"):
            assert relayed(KEYS[0], [b"x " + echo[: len(echo) - 14]]).rstrip(b"*") == b"x "


def test_a_short_key_is_only_looked_for_as_it_is():
    """A stand-in's key of a few letters does not eat answers: its other codings are words of any text."""
    assert relayed(b"key", [b"a key: 6b6579 a2V5 yek"]) == b"a ***: 6b6579 a2V5 yek"


@pytest.mark.parametrize("word", CODINGS)
def test_a_header_with_a_coded_key_is_known(word):
    """A header's value with the key in any coding is found, one without is not."""
    redactor = Redactor(Secret(KEYS[0]))
    assert redactor.occurs_in(b"token=" + CODINGS[word](KEYS[0]) + b"; x")
    assert not redactor.occurs_in(b"token=" + CODINGS[word](b"another-key-of-no-one-0123456789"))


def test_what_is_held_back_is_bounded():
    """Whatever comes, no more is held than the longest coded key."""
    redactor = Redactor(Secret(KEYS[0]))
    for piece in (b"\\" * 100_000, b"%25" * 50_000, b"73" * 50_000, b"sk-ant-a" * 10_000, b"&#x" * 30_000):
        fed = len(redactor._held)
        shown = redactor.feed(piece)
        assert fed + len(piece) - len(shown) <= 13 * 2 * len(KEYS[0])
