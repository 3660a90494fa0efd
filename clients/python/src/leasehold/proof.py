"""Ready-made proofs of possession: DPoP, and the workload proof token. Needs the extra `proof`.

Owns what is signed; the key is read from its file for each call and never kept, so a rotated one is used at once.
"""

import base64
import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt

from leasehold.errors import IdentityRejected

KEY_BYTES_MAX = 16_384
WPT_SECONDS = 60
METHOD_SCHEME = "leasehold:///"
ALGORITHMS = frozenset({"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"})


class DpopProof:
    """DPoP (RFC 9449) for gRPC: pass it as `proof=` to a client.

    The token must name the key in `cnf.jkt`. Each call gets a proof of its own, for its method and this token only.

    Args:
        key_file: private key (PEM), in a file that only this user can read.
        algorithm: that fits the key: "ES256" for P-256, "EdDSA" for Ed25519, "RS256" or "PS256" for RSA, ...

    Raises:
        ValueError: an algorithm that is no asymmetric signature.
    """

    def __init__(self, key_file: str | os.PathLike[str], algorithm: str = "ES256") -> None:
        """See the class."""
        if algorithm not in ALGORITHMS:
            message = f"algorithm {algorithm!r} is none of {', '.join(sorted(ALGORITHMS))}"
            raise ValueError(message)
        self._key_file = key_file
        self._algorithm = algorithm

    def __call__(self, method: str, token: str) -> Mapping[str, str]:
        """The metadata of one call.

        Raises:
            IdentityRejected: the key cannot be read, or does not fit the algorithm.
        """
        key = _private_key(self._key_file, self._algorithm)
        public = jwt.get_algorithm_by_name(self._algorithm).to_jwk(key.public_key(), as_dict=True)
        public.pop("key_ops", None)
        claims = {
            "htm": "POST",
            "htu": METHOD_SCHEME + method,
            "ath": _hash(token),
            "iat": int(time.time()),
            "jti": str(uuid.uuid4()),
        }
        proof = jwt.encode(claims, key, self._algorithm, headers={"typ": "dpop+jwt", "jwk": public})
        return {"authorization": f"DPoP {token}", "dpop": proof}


class WitProof:
    """A workload identity token (WIT, WIT-SVID) with its workload proof token: pass it as `proof=` to a client.

    The client's `token` is the WIT; it names the key and the algorithm in `cnf.jwk`.

    Args:
        key_file: the workload's private key (PEM), in a file that only this user can read.
        audience: of the broker, exactly as in its configuration.
    """

    def __init__(self, key_file: str | os.PathLike[str], audience: str) -> None:
        """See the class."""
        self._key_file = key_file
        self._audience = audience

    def __call__(self, method: str, token: str) -> Mapping[str, str]:
        """The metadata of one call.

        Raises:
            IdentityRejected: the key cannot be read, or the token does not say which algorithm it is for.
        """
        algorithm = _algorithm_of(token)
        claims = {
            "aud": f"{self._audience}/{method}",
            "exp": int(time.time()) + WPT_SECONDS,
            "jti": str(uuid.uuid4()),
            "wth": _hash(token),
        }
        proof = jwt.encode(claims, _private_key(self._key_file, algorithm), algorithm, headers={"typ": "wpt+jwt"})
        return {"authorization": f"WPT {proof}", "workload-identity-token": token}


def _private_key(path: str | os.PathLike[str], algorithm: str) -> Any:
    try:
        with Path(path).open("rb") as file:
            pem = file.read(KEY_BYTES_MAX)
        return jwt.get_algorithm_by_name(algorithm).prepare_key(pem)
    except OSError as error:
        message = f"the proof's key file {os.fspath(path)} cannot be read: {error.strerror or 'unknown'}."
        raise IdentityRejected(message, reason="PROOF_REJECTED") from None
    except (jwt.InvalidKeyError, ValueError, TypeError):
        message = f"the proof's key file {os.fspath(path)} holds no private key (PEM) for {algorithm}."
        raise IdentityRejected(message, reason="PROOF_REJECTED") from None


def _algorithm_of(token: str) -> str:
    payload = token.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        algorithm = claims["cnf"]["jwk"]["alg"]
    except (ValueError, KeyError, TypeError, RecursionError):
        algorithm = None
    if algorithm not in ALGORITHMS:
        raise IdentityRejected(
            "the workload token names no key with an algorithm ('cnf.jwk.alg'); is it a workload identity token?",
            reason="PROOF_REJECTED",
        )
    return str(algorithm)


def _hash(token: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode("ascii")).digest()).rstrip(b"=").decode()
