"""What a secret looks like from outside. Owns the list of shapes; refuses to be the first line of defence.

Used where a secret should never have been: in a line about to be logged, in a process's environment. A shape without a
mark of its own (an old Azure key is 32 hexadecimal digits, as is a trace id) is known only by the name before it.
"""

import re

REDACTED = "[redacted]"

# A word may end in "sk-" ("task-list"), and a line break written as \\n puts a letter before the key.
_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
_ALONE = r"(?:(?<![A-Za-z0-9+/=_.\-])|(?<=\\[nrt]))"
_ALONE_END = r"(?![A-Za-z0-9+/=_.\-])"
_MIXED = r"(?=[A-Za-z0-9+/]{0,39}[a-z])(?=[A-Za-z0-9+/]{0,39}[A-Z])(?=[A-Za-z0-9+/]{0,39}[0-9])"
_JWT = r"[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*"
_VALUE = r"(?=[^\s\"',;]{0,128}[0-9])"

_PROVIDER_KEYS = {
    "sk-": r"sk-(?:ant|proj|svcacct|admin|or)-[A-Za-z0-9_\-]{8,}|" + _START + r"sk-[A-Za-z0-9_\-]{16,}",
    "AIza": r"AIza[A-Za-z0-9_\-]{16,}",
    "AQ.": _START + r"AQ\.[A-Za-z0-9_\-]{16,}",
    **{mark: _START + mark + r"[A-Z0-9]{16}(?![A-Z0-9])" for mark in ("AKIA", "ASIA", "ABIA", "ACCA")},
    "ABSK": _START + r"ABSK[A-Za-z0-9+/]{16,}={0,2}",
    "bedrock-api-key-": r"bedrock-api-key-[A-Za-z0-9+/=_\-]{16,}",
    "ya29.": _START + r"ya29\.[A-Za-z0-9_\-.]{16,}",
    "JQQJ99": r"[A-Za-z0-9]{40,64}JQQJ9[A-Za-z0-9]{16,}",
    **{mark: _START + mark + r"[A-Za-z0-9_\-]{16,}" for mark in ("xai-", "gsk_", "pplx-", "hf_", "fw_", "tgp_v1_")},
}
_OTHER_SECRETS = {
    "PRIVATE KEY": r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]{0,32}PRIVATE KEY-----|\Z)",
    "lhs_": r"lhs_[A-Za-z0-9_\-]{8,}",
    # A JWT: how {" and { and a space or a line break begin in base64.
    **{mark: mark + _JWT for mark in ("eyJ", "eyA", "ewo", "ew0")},
    # Tokens of Vault, and of OpenBao (26 characters without a telling mark).
    **{mark: _START + mark + r"\.[A-Za-z0-9_\-]{16,}" for mark in ("hvs", "hvb", "hvr")},
    "s.": _START + r"s\.(?=[A-Za-z]{0,23}[0-9])[A-Za-z0-9]{24}(?![A-Za-z0-9_\-])",
}
_AFTER_SCHEME = {mark: mark + r"\s+" + _VALUE + r"[A-Za-z0-9_\-.~+/=]{8,}" for mark in ("bearer", "basic")}
_NAMES = ("key", "secret", "passphrase", "password", "credential", "token")
_AFTER_NAME = {mark: mark + r"[\"']?\s{0,4}[:=]\s{0,4}[\"']?" + _VALUE + r"[^\s\"',;]{12,}" for mark in _NAMES}
# A master key (32 bytes as base64), an AWS secret key (40 characters), a Mistral key (32).
_UNMARKED = re.compile(
    r"(?:(?<![A-Za-z0-9+/])|(?<=\\[nrt]))[A-Za-z0-9+/]{43}=(?![A-Za-z0-9=])|"
    + _ALONE
    + _MIXED
    + r"(?:[A-Za-z0-9+/]{40}|[A-Za-z0-9]{32})"
    + _ALONE_END
)
_LONG_WORD = re.compile(r"[A-Za-z0-9+/]{32}")

# By mark: looking for a mark is a hundred times quicker than for a shape, and ordinary text has none.
_PROVIDER_SHAPES = {mark: re.compile(shape) for mark, shape in _PROVIDER_KEYS.items()}
_SHAPES = {**_PROVIDER_SHAPES, **{mark: re.compile(shape) for mark, shape in _OTHER_SECRETS.items()}}
_LOWER_SHAPES = {mark: re.compile(shape, re.IGNORECASE) for mark, shape in (_AFTER_SCHEME | _AFTER_NAME).items()}

SECRET_FIELDS = frozenset(
    {
        "api-key",
        "api_key",
        "apikey",
        "authorization",
        "cookie",
        "credential",
        "dpop",
        "lease_token",
        "master_key",
        "ocp-apim-subscription-key",
        "passphrase",
        "password",
        "proxy-authorization",
        "secret",
        "set-cookie",
        "token",
        "x-api-key",
        "x-goog-api-key",
    }
)
"""Names, in lower case, whose value is a secret whatever it looks like."""


def is_provider_key(text: str) -> bool:
    """True when `text` holds something shaped like the key of a known provider."""
    return any(mark in text and shape.search(text) is not None for mark, shape in _PROVIDER_SHAPES.items())


def without_secrets(text: str) -> str:
    """`text` with everything shaped like a key, a token or a private key replaced."""
    for mark, shape in _SHAPES.items():
        if mark in text:
            text = shape.sub(REDACTED, text)
    lower = text.lower()
    for mark, shape in _LOWER_SHAPES.items():
        if mark in lower:
            text = shape.sub(REDACTED, text)
    return _UNMARKED.sub(REDACTED, text) if _LONG_WORD.search(text) else text
