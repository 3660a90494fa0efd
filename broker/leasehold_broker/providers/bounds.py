"""The most tokens that any tokenizer can make of a request. Owns the arithmetic; refuses to tokenize or to guess.

A byte-level tokenizer covers at least one byte with each token, and a tokenizer that normalises first (NFKC) at least
one byte of the normalised text; so the larger of the two byte counts of the canonical body bounds its text. Parts that
are not text (images) are taken out of the byte count and put in with their own maximum; opaque text that stands for
other text (encrypted reasoning) is counted several times. Reasons: broker/decisions/0010-input-bound.md.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Json
from leasehold_broker.providers.checks import invalid

REQUEST_OVERHEAD = 64
"""Tokens a chat template adds to a request, whatever is in it."""
MESSAGE_OVERHEAD = 16
"""Tokens a chat template adds to one message or part, beyond what the JSON around it already counts for."""
TOOLS_OVERHEAD = 2048
"""Tokens of the instructions that a vendor adds once as soon as tools or a schema are given (documented: up to 804)."""
TOOL_OVERHEAD = 64
"""Tokens a template adds to one declared tool, beyond its JSON."""
VENDOR_TOOL_OVERHEAD = 2048
"""Tokens of a client-run tool whose description the vendor holds (documented: up to 1,300)."""
OPAQUE_FACTOR = 4
"""An opaque character may stand for this many tokens (text compresses to about one base64 character per token)."""
FLOAT_OVERHEAD = 330
"""A number in exponent form may be written out by the vendor: up to 309 digits."""

NFKC_FACTOR = 11
"""The most by which normalising can make a text longer, in UTF-8 (U+FDFA: 3 bytes become 33)."""
CHARACTERS_MAX = 20_000
"""Different characters that are looked at one by one; no text that people write has more."""
_SLICE = 65_536
_ASCII = bytes(range(128))

_EXPONENTS_ALIKE = bytes.maketrans(b"123456789E", b"000000000e")
_EXPONENT = re.compile(rb"[:,\[]-?\d+(?:\.\d+)?[eE]")


@dataclass(slots=True)
class Parts:
    """What a walk over the request adds to, and takes from, the byte count."""

    left_out_bytes: int = 0
    extra_tokens: int = REQUEST_OVERHEAD
    tools: list[str] = field(default_factory=list)
    rereads: int = 0
    web_searches: int = 0
    file_searches: int = 0
    audio_tokens: int = 0

    def sound(self, data: str, tokens_max: int) -> None:
        """An inline sound: its base64 is not text, its tokens have a price of their own."""
        self.left_out_bytes += len(data)
        self.audio_tokens += tokens_max

    def image(self, data: str, tokens_max: int) -> None:
        """An inline image: its base64 is not text, its tokens have a maximum."""
        self.left_out_bytes += len(data)
        self.extra_tokens += tokens_max

    def opaque(self, value: Json) -> None:
        """Text that stands for other text."""
        if isinstance(value, str):
            self.extra_tokens += (OPAQUE_FACTOR - 1) * len(value)

    def server_tool(self, kind: str, rereads: int, *, web_searches: int = 0, file_searches: int = 0) -> None:
        """A tool that the vendor runs: how often the conversation is read again for it, and its own uses."""
        self.tools.append(kind)
        self.rereads = max(self.rereads, rereads)
        self.web_searches += web_searches
        self.file_searches += file_searches

    @property
    def units(self) -> Usage:
        """The most of everything that is counted apart from text."""
        return Usage(
            web_searches=self.web_searches, file_searches=self.file_searches, input_audio_tokens=self.audio_tokens
        )

    def messages(self, count: int) -> None:
        """Messages or parts."""
        self.extra_tokens += count * MESSAGE_OVERHEAD


def canonical(body: Json) -> bytes:
    """The body as it is sent: one form, every byte written by us, the caller's order of members kept.

    Raises:
        Refusal: BODY_INVALID when a value has no JSON form (a lone surrogate).
    """
    try:
        return msgspec.json.encode(body)
    except (UnicodeEncodeError, RecursionError) as error:
        raise invalid("body", "holds a value that cannot be sent on; use valid text") from error


def text_tokens_bound(encoded: bytes) -> int:
    """The most tokens of a text in UTF-8: at least its bytes, and at least the bytes of its NFKC form.

    Takes time in proportion to the text, whatever is in it. Normalising it would not: a run of accents out of order
    is sorted by insertion, so that one hostile text of a megabyte would stop the process for hours.
    """
    foreign = encoded.translate(None, _ASCII).decode()
    if not foreign:
        return len(encoded)
    counts: Counter[str] = Counter()
    for start in range(0, len(foreign), _SLICE):
        counts.update(foreign[start : start + _SLICE])
        if len(counts) > CHARACTERS_MAX:
            return len(encoded) * NFKC_FACTOR
    return max(len(encoded), len(encoded) - len(foreign.encode()) + _nfkc_bytes_bound(counts))


def _nfkc_bytes_bound(counts: Counter[str]) -> int:
    """The most bytes of the NFKC form of any text of these characters, in any order.

    Normal forms of neighbours are joined as they are, or composed, which is shorter; but a mark may be sorted between
    a character and an accent of its own, and undo its composition. So each mark pays for the largest such loss.
    """
    total = marks = loss = 0
    for character, count in counts.items():
        apart = unicodedata.normalize("NFKD", character)
        size = len(apart.encode())
        if unicodedata.combining(apart[0]):
            marks += count
        else:
            composed = len(unicodedata.normalize("NFKC", character).encode())
            loss = max(loss, size - composed)
            size = composed
        total += count * size
    return total + marks * loss


def input_tokens_bound(body: Json, parts: Parts) -> int:
    """The most input tokens of a request whose body passed the walk that filled `parts`."""
    encoded = canonical(body)
    # Few requests hold such a number, and looking for digit and letter alone costs a tenth of the pattern.
    exponents = len(_EXPONENT.findall(encoded)) if b"0e" in encoded.translate(_EXPONENTS_ALIKE) else 0
    return text_tokens_bound(encoded) - parts.left_out_bytes + parts.extra_tokens + exponents * FLOAT_OVERHEAD
