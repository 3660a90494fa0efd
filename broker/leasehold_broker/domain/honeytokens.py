"""Honeytokens: leases and provider keys that nobody should use. Owns their shapes, and that only digests are kept.

One is laid where only an intruder looks: in an image, a repository, a prompt, a mailbox. It looks real and
opens nothing. Whoever presents it has been where no agent has business: its leases end, and humans are told.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from leasehold_broker.domain.lease import TOKEN_ENTROPY_BYTES, make_token
from leasehold_broker.domain.reasons import Refusal

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII)
NAME_RULE = "must be 1 to 64 of a-z, 0-9, '.', '_', '-', with a letter or digit at both ends"
HONEYTOKENS_MAX = 10_000
ENTROPY_BYTES = 128
"""What `make_honeytoken` is handed: enough for the longest shape."""


class HoneytokenKind(StrEnum):
    """What it looks like."""

    LEASE = "lease"
    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    GEMINI = "gemini"
    GROQ = "groq"
    OPENROUTER = "openrouter"
    XAI = "xai"


@dataclass(frozen=True, slots=True)
class Honeytoken:
    """One, as it is kept: its value is not.

    Args:
        name: where it was laid, for whoever reads the alarm.
        kind: what it looks like.
        sha256: of its value, hex. The value has at least 200 random bits, so the digest tells nobody anything.
        create_wall_ms: when it was made.
    """

    name: str
    kind: HoneytokenKind
    sha256: str
    create_wall_ms: int


_SHAPES: Mapping[HoneytokenKind, tuple[str, int, str]] = {
    HoneytokenKind.ANTHROPIC: ("sk-ant-api03-", 93, "AA"),
    HoneytokenKind.OPENAI: ("sk-proj-", 156, ""),
    HoneytokenKind.GEMINI: ("AIzaSy", 33, ""),
    HoneytokenKind.GROQ: ("gsk_", 52, ""),
    HoneytokenKind.XAI: ("xai-", 80, ""),
}
"""Prefix, how many characters of base64url follow, suffix: as the vendors' keys look today."""
_URL_SAFE = frozenset({HoneytokenKind.ANTHROPIC, HoneytokenKind.OPENAI, HoneytokenKind.GEMINI})


def make_honeytoken(kind: HoneytokenKind, entropy: bytes) -> str:
    """The value of a new one, of ENTROPY_BYTES handed random bytes. Shown once, never kept.

    Raises:
        ValueError: not that many bytes.
    """
    if len(entropy) != ENTROPY_BYTES:
        message = f"a honeytoken needs {ENTROPY_BYTES} random bytes, got {len(entropy)}"
        raise ValueError(message)
    if kind is HoneytokenKind.LEASE:
        return make_token(entropy[:TOKEN_ENTROPY_BYTES]).reveal().decode()
    if kind is HoneytokenKind.OPENROUTER:
        return f"sk-or-v1-{entropy[:32].hex()}"
    prefix, length, suffix = _SHAPES[kind]
    body = base64.urlsafe_b64encode(entropy).decode()
    if kind not in _URL_SAFE:
        body = body.replace("-", "x").replace("_", "Y")
    return prefix + body[:length] + suffix


def digest_of(value: str) -> str:
    """What is kept of a value: SHA-256, hex."""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()


class Traps:
    """The honeytokens that are laid, by digest."""

    def __init__(self, honeytokens: Iterable[Honeytoken] = ()) -> None:
        """Lay these."""
        self._by_digest = {one.sha256: one for one in honeytokens}

    def __len__(self) -> int:
        """How many are laid."""
        return len(self._by_digest)

    def sprung_by(self, unverified_credentials: Iterable[str]) -> Honeytoken | None:
        """The honeytoken among what a caller presents, or None."""
        if not self._by_digest:
            return None
        found = (self._by_digest.get(digest_of(one)) for one in unverified_credentials)
        return next((one for one in found if one is not None), None)


@dataclass(slots=True)
class TrapSprung(Refusal):
    """A refusal of who presented a honeytoken: to the caller the same as any other, so that it warns nobody."""

    honeytoken: Honeytoken | None = None

    @classmethod
    def over(cls, refusal: Refusal, honeytoken: Honeytoken) -> "TrapSprung":
        """The same refusal, with what was presented."""
        return cls(
            refusal.reason,
            refusal.message,
            f"honeytoken {honeytoken.name}; {refusal.detail}".removesuffix("; "),
            refusal.retry_after_seconds,
            refusal.violations,
            honeytoken,
        )
