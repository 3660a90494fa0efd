"""Public keys out of a JWKS or SPIFFE bundle. Owns which keys may verify what; refuses secrets and weak keys.

A key is kept only when its own words allow verifying signatures: `use`, `key_ops` and `alg` are read, which PyJWT does
not do. Keys that we cannot use are left out, as RFC 7517, section 5, demands; a set without a usable key is refused.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm
from jwt.exceptions import InvalidKeyError

from leasehold_broker.adapters.strict_json import NotStrictJsonError, read_object
from leasehold_broker.adapters.weak_keys import has_roca

SET_BYTES_MAX = 256 * 1024
KEYS_MAX = 64
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192
SAME_KEY_ID_MAX = 4
VERIFIED_MAX = 4096
"""Good signatures that are remembered of one key."""

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_BY_CURVE = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_READERS: Mapping[str, Callable[[dict[str, object]], object]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}

ALGORITHMS: Mapping[str, Algorithm] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "PS384": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384),
    "PS512": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384),
    "ES512": ECAlgorithm(ECAlgorithm.SHA512),
    "EdDSA": OKPAlgorithm(),
    "Ed25519": OKPAlgorithm(),
}
"""Our names to PyJWT's signature checks: neither `none` nor an HMAC is among them, so neither can be chosen."""


class KeySetRefusedError(ValueError):
    """A key set is refused as a whole; the message says why."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key and the algorithms that its type, curve and own words allow."""

    key_id: str | None
    algorithms: frozenset[str]
    public_key: PublicKey
    _verified: dict[bytes, None] = field(default_factory=dict, repr=False, compare=False)

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """True when the signature over exactly these bytes is this key's; False for any other algorithm.

        What was found good is remembered, as a digest of all three, for as long as the key is: a callers' token comes
        with each of its calls. It says that the signature is this key's, which never changes; whether the token may
        be used now is nobody's memory (decisions/0021).
        """
        if algorithm not in self.algorithms:
            return False
        whole = hashlib.sha256(b"%b %d %b%b" % (algorithm.encode(), len(signed), signed, signature)).digest()
        if whole in self._verified:
            return True
        good = ALGORITHMS[algorithm].verify(signed, self.public_key, signature)
        if good:
            self._verified[whole] = None
            if len(self._verified) > VERIFIED_MAX:
                del self._verified[next(iter(self._verified))]
        return good


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one issuer, and why the others are not."""

    keys: tuple[VerificationKey, ...]
    left_out: tuple[str, ...] = ()

    def candidates(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """The keys to try: those with this id, or without an id the only one that fits the algorithm."""
        fitting = tuple(key for key in self.keys if algorithm in key.algorithms)
        if key_id is None:
            return fitting if len(fitting) == 1 else ()
        return tuple(key for key in fitting if key.key_id == key_id)[:SAME_KEY_ID_MAX]


def read_key_set(data: bytes, uses: frozenset[str]) -> KeySet:
    """The usable keys in a JWKS document.

    Args:
        data: the document.
        uses: values of `use` that may verify; "" stands for its absence.

    Raises:
        KeySetRefusedError: not a key set, too large, or without one usable key.
    """
    if len(data) > SET_BYTES_MAX:
        message = f"the key set is larger than {SET_BYTES_MAX} bytes"
        raise KeySetRefusedError(message)
    try:
        members = read_object(data).get("keys")
    except NotStrictJsonError as error:
        message = f"the key set is not strict JSON: {error}"
        raise KeySetRefusedError(message) from None
    if not isinstance(members, list):
        raise KeySetRefusedError("the key set has no list of 'keys'")
    if len(members) > KEYS_MAX:
        message = f"the key set has {len(members)} keys; at most {KEYS_MAX} are read"
        raise KeySetRefusedError(message)
    keys: list[VerificationKey] = []
    left_out: list[str] = []
    for number, member in enumerate(members):
        try:
            keys.append(read_key(member, uses))
        except KeySetRefusedError as error:
            left_out.append(f"key {number}: {error}")
    if not keys:
        message = f"the key set has no usable key ({'; '.join(left_out[:4]) or 'it is empty'})"
        raise KeySetRefusedError(message)
    return KeySet(tuple(keys), tuple(left_out))


def read_key(jwk: object, uses: frozenset[str]) -> VerificationKey:
    """One public key that may verify signatures.

    Args:
        jwk: the key, as read from JSON.
        uses: values of `use` that may verify; "" stands for its absence.

    Raises:
        KeySetRefusedError: it is none; the message says why.
    """
    if not isinstance(jwk, dict):
        raise KeySetRefusedError("not an object")
    kind, use = jwk.get("kty"), jwk.get("use", "")
    if not isinstance(kind, str) or kind not in _READERS:
        raise KeySetRefusedError("not an asymmetric key of a known type")
    if _PRIVATE_MEMBERS & jwk.keys():
        raise KeySetRefusedError("it carries private parts: whoever fetches this set could sign")
    if not isinstance(use, str) or use not in uses or ("use" in jwk and not use):
        raise KeySetRefusedError("its 'use' is not for these tokens")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise KeySetRefusedError("its 'key_ops' do not include verify")
    key_id = jwk.get("kid")
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= 256):
        raise KeySetRefusedError("its 'kid' is not text of 1 to 256 characters")
    public_key, algorithms = _public_key(jwk)
    if "alg" in jwk:
        stated = jwk["alg"]
        algorithms = tuple(name for name in algorithms if name == stated)
        if not algorithms:
            raise KeySetRefusedError("its 'alg' does not fit its type or is not known")
    return VerificationKey(key_id, frozenset(algorithms), public_key)


def _public_key(jwk: dict[str, object]) -> tuple[PublicKey, tuple[str, ...]]:
    try:
        key = _READERS[str(jwk["kty"])](jwk)
    except (InvalidKeyError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError):
        raise KeySetRefusedError("it cannot be read as a public key") from None
    if isinstance(key, RSAPublicKey):
        if not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
            message = f"RSA of {key.key_size} bits; {RSA_BITS_MIN} to {RSA_BITS_MAX} are accepted"
            raise KeySetRefusedError(message)
        if key.public_numbers().e.bit_length() > 32:
            raise KeySetRefusedError("RSA with an exponent of more than 32 bits")
        if has_roca(key.public_numbers().n):
            raise KeySetRefusedError("RSA from a generator whose keys can be factored (ROCA)")
        return key, _RSA
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _BY_CURVE:
        return key, _BY_CURVE[key.curve.name]
    if isinstance(key, Ed25519PublicKey):
        return key, ("EdDSA", "Ed25519")
    raise KeySetRefusedError("its curve is not accepted")
