"""An issuer of real tokens: real keys, and signing over exactly the header and payload bytes a test hands in."""

import base64
import json
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from leasehold_broker.adapters.jwk_set import ALGORITHMS


@cache
def rsa_key(name: str = "a", bits: int = 2048):
    """An RSA private key; the same name gives the same key within one run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(name: str = "a", curve: str = "P-256"):
    """An EC private key."""
    return ec.generate_private_key({"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}[curve])


@cache
def ed_key(name: str = "a"):
    """An Ed25519 private key."""
    return ed25519.Ed25519PrivateKey.generate()


def jwk(private_key, **members) -> dict:
    """The public JWK of a key, with more members."""
    public = private_key.public_key()
    if isinstance(private_key, rsa.RSAPrivateKey):
        document = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(private_key, ec.EllipticCurvePrivateKey):
        document = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        document = OKPAlgorithm.to_jwk(public, as_dict=True)
    document.pop("key_ops", None)
    document.update(members)
    return document


def jwks(*keys: dict, **members) -> bytes:
    """A key set document."""
    return json.dumps({"keys": list(keys), **members}).encode()


def b64(data: bytes) -> str:
    """Canonical unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign_raw(header: bytes, payload: bytes, private_key, algorithm: str = "RS256") -> str:
    """A compact JWS over exactly these bytes; `private_key` bytes sign with HMAC."""
    signed = f"{b64(header)}.{b64(payload)}"
    if isinstance(private_key, bytes):
        signature = HMACAlgorithm(HMACAlgorithm.SHA256).sign(signed.encode(), private_key)
    else:
        signature = ALGORITHMS[algorithm].sign(signed.encode(), private_key)
    return f"{signed}.{b64(signature)}"


def sign(claims: dict, private_key, algorithm: str = "RS256", **header) -> str:
    """A token with these claims; header members given as None are left out."""
    members = {"alg": algorithm, "kid": "k1", "typ": "JWT", **header}
    document = {name: value for name, value in members.items() if value is not None}
    return sign_raw(json.dumps(document).encode(), json.dumps(claims).encode(), private_key, algorithm)
