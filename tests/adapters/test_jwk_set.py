"""What a key remembers of the signatures that it has verified, and what it does not."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from jwt.utils import der_to_raw_signature

from leasehold_broker.adapters import jwk_set
from leasehold_broker.adapters.jwk_set import ALGORITHMS, VerificationKey

PRIVATE = ec.generate_private_key(ec.SECP256R1())


def key() -> VerificationKey:
    """The public half, as a fresh key of a set."""
    return VerificationKey("k", frozenset({"ES256"}), PRIVATE.public_key())


def signature(signed: bytes) -> bytes:
    """As in a JWS."""
    return der_to_raw_signature(PRIVATE.sign(signed, ec.ECDSA(SHA256())), ec.SECP256R1())


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was really verified, in order."""
    done: list[bytes] = []
    real = ALGORITHMS["ES256"]

    class Counting:
        def verify(self, signed: bytes, public_key: object, found: bytes) -> bool:
            done.append(signed)
            return real.verify(signed, public_key, found)

    monkeypatch.setattr(jwk_set, "ALGORITHMS", {"ES256": Counting()})
    return done


def test_a_good_signature_is_verified_once_by_each_key(checks: list[bytes]) -> None:
    """The second time the key knows; a key of a set that was fetched anew does not."""
    one, good = key(), signature(b"token")
    assert [one.verifies("ES256", b"token", good) for _ in range(3)] == [True] * 3
    assert len(checks) == 1
    assert key().verifies("ES256", b"token", good)
    assert len(checks) == 2


def test_what_differs_in_any_byte_is_verified_for_itself(checks: list[bytes]) -> None:
    """Other bytes, another signature, another split between the two, another algorithm: nothing is taken as known."""
    one, good = key(), signature(b"token")
    assert one.verifies("ES256", b"token", good)
    assert not one.verifies("ES256", b"tokem", good)
    assert not one.verifies("ES256", b"token", good[:-1] + bytes([good[-1] ^ 1]))
    assert not one.verifies("ES256", b"token" + good[:1], good[1:])
    assert not one.verifies("ES384", b"token", good)
    assert len(checks) == 4


def test_a_bad_signature_is_never_remembered_and_the_memory_is_bounded(
    checks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of bad ones takes no room; of good ones the oldest go."""
    monkeypatch.setattr(jwk_set, "VERIFIED_MAX", 2)
    one = key()
    for _ in range(3):
        assert not one.verifies("ES256", b"token", bytes(64))
    assert len(checks) == 3
    tokens = [(signed, signature(signed)) for signed in (b"a", b"b", b"c")]
    assert all(one.verifies("ES256", *token) for token in tokens)
    assert one.verifies("ES256", *tokens[2])
    assert len(checks) == 6
    assert one.verifies("ES256", *tokens[0])
    assert len(checks) == 7
