"""The gate in front of any JWT library. Owns the one reading of a compact JWS; refuses everything with two readings.

Nothing here is trusted yet: names say `unverified_`. The bytes that are handed on are exactly the bytes that came, so
what was checked is what is verified (RFC 7515, sections 2, 5.2 and 7.1; RFC 8725, section 3).
"""

import base64
import binascii
import re
from collections.abc import Mapping

from leasehold_broker.adapters.strict_json import NotStrictJsonError, read_object
from leasehold_broker.domain.issuer import NO_TYPE
from leasehold_broker.domain.lease import TOKEN_PREFIX
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.values import value
from leasehold_broker.domain.workload_claims import rejected

TOKEN_CHARACTERS_MAX = 8192
KEY_ID_CHARACTERS_MAX = 256
SIGNATURE_BYTES_MAX = 1024
"""RSA with 8192 bits: nothing that we accept signs longer."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
_HEADER_MEMBERS = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
"""`x5t` names a certificate that we do not look for: it is let in and not read. `crit`, `jku`, `jwk`, `x5u`, `x5c`,
`b64` and `zip` would change what the signature means or whose it is: a token with them is refused."""
_PROOF_HEADER_MEMBERS = frozenset({"alg", "typ", "jwk"})
"""A proof may carry the key it is signed with (RFC 9449, section 4.2): the token says whether that is the right one."""


@value
class UnverifiedToken:
    """A well-formed token, of which nothing is proven.

    Args:
        algorithm, key_id, token_type: from the header; key_id None and token_type "" when absent. The type is lower
            case, without "application/".
        claims: the payload.
        key: the public key in the header of a proof, unread; None in tokens and where it is absent.
        signed: the exact bytes that the signature covers.
        signature: the signature.
    """

    algorithm: str
    key_id: str | None
    token_type: str
    claims: Mapping[str, object]
    key: Mapping[str, object] | None
    signed: bytes
    signature: bytes


def read_token(unverified_token: str) -> UnverifiedToken:
    """Read the compact JWS of a workload token.

    Raises:
        Refusal: JWT_MALFORMED, or TOKEN_TYPE_REJECTED for a lease token; the detail says what, never the text.
    """
    return _read(unverified_token, _HEADER_MEMBERS)


def read_proof(unverified_proof: str) -> UnverifiedToken:
    """Read the compact JWS of a proof of possession. Raises as `read_token`."""
    return _read(unverified_proof, _PROOF_HEADER_MEMBERS)


def _read(unverified_token: str, members: frozenset[str]) -> UnverifiedToken:
    if len(unverified_token) > TOKEN_CHARACTERS_MAX:
        raise rejected(Reason.JWT_MALFORMED, f"longer than {TOKEN_CHARACTERS_MAX} characters")
    if unverified_token.startswith(TOKEN_PREFIX):
        raise rejected(Reason.TOKEN_TYPE_REJECTED, "a lease token was presented as a workload token")
    match = _COMPACT.fullmatch(unverified_token)
    if match is None:
        raise rejected(Reason.JWT_MALFORMED, "not three base64url segments")
    header = _object(match[1], "header")
    unknown = sorted(header.keys() - members)
    if unknown:
        raise rejected(Reason.JWT_MALFORMED, f"header member {unknown[0][:32]!r} is not allowed")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise rejected(Reason.JWT_MALFORMED, "header member 'alg' is missing or not text")
    signature = _decode(match[3], "signature")
    if len(signature) > SIGNATURE_BYTES_MAX:
        raise rejected(Reason.JWT_MALFORMED, f"signature is longer than {SIGNATURE_BYTES_MAX} bytes")
    return UnverifiedToken(
        algorithm,
        _key_id(header),
        _token_type(header),
        _object(match[2], "payload"),
        _key(header),
        unverified_token[: match.end(2)].encode("ascii"),
        signature,
    )


def _key(header: Mapping[str, object]) -> Mapping[str, object] | None:
    key = header.get("jwk")
    if key is not None and not isinstance(key, dict):
        raise rejected(Reason.JWT_MALFORMED, "header member 'jwk' is not an object")
    return key


def _key_id(header: Mapping[str, object]) -> str | None:
    if "kid" not in header:
        return None
    key_id = header["kid"]
    if not isinstance(key_id, str) or not 0 < len(key_id) <= KEY_ID_CHARACTERS_MAX or not key_id.isprintable():
        raise rejected(
            Reason.JWT_MALFORMED, f"header member 'kid' is not 1 to {KEY_ID_CHARACTERS_MAX} printable characters"
        )
    return key_id


def _token_type(header: Mapping[str, object]) -> str:
    if "typ" not in header:
        return NO_TYPE
    token_type = header["typ"]
    if not isinstance(token_type, str) or not token_type or not token_type.isascii():
        raise rejected(Reason.JWT_MALFORMED, "header member 'typ' is not ASCII text")
    return token_type.lower().removeprefix("application/")


def _object(segment: str, what: str) -> dict[str, object]:
    try:
        return read_object(_decode(segment, what))
    except NotStrictJsonError as error:
        raise rejected(Reason.JWT_MALFORMED, f"{what}: {error}") from None


def _decode(segment: str, what: str) -> bytes:
    """Decode canonical unpadded base64url: text that another text decodes to the same bytes is refused."""
    raw = segment.encode("ascii")
    try:
        data = base64.urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
    except binascii.Error:
        data = b""
    if base64.urlsafe_b64encode(data).rstrip(b"=") != raw:
        raise rejected(Reason.JWT_MALFORMED, f"{what} is not canonical base64url")
    return data
