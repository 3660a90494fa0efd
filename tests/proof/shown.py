"""Proofs as a test wants them: right by default, wrong where asked, signed with real keys."""

import time
import uuid

from tests.fakes.issuer import ec_key, jwk, sign, sign_raw

from leasehold_broker.adapters.jwt_proofs import key_thumbprint
from leasehold_broker.domain.proof import token_hash

AUDIENCE = "https://broker.test"
AGENT = "agent"
JKT = key_thumbprint(jwk(ec_key(AGENT)))


def _signed(claims: dict, changes: dict, header: dict, key: object, algorithm: str) -> str:
    body = {name: value for name, value in (claims | changes).items() if value is not None}
    return sign(body, key, algorithm, **{"kid": None} | header)


class Dpop:
    """A DPoP proof; claims and header members given as None are left out."""

    def __init__(self, claims: dict | None = None, header: dict | None = None, key: object = None, alg: str = "ES256"):
        """Change these."""
        self._claims, self._header, self._key, self._alg = claims or {}, header or {}, key or ec_key(AGENT), alg

    def __call__(self, method: str, token: str) -> dict[str, str]:
        """The metadata."""
        claims = {
            "htm": "POST",
            "htu": f"leasehold:///{method}",
            "ath": token_hash(token),
            "iat": int(time.time()),
            "jti": str(uuid.uuid4()),
        }
        header = {"typ": "dpop+jwt", "jwk": jwk(ec_key(AGENT))} | self._header
        proof = _signed(claims, self._claims, header, self._key, self._alg)
        return {"authorization": f"DPoP {token}", "dpop": proof}


class Wpt:
    """A workload proof token."""

    def __init__(self, claims: dict | None = None, header: dict | None = None, key: object = None, alg: str = "ES256"):
        """Change these."""
        self._claims, self._header, self._key, self._alg = claims or {}, header or {}, key or ec_key(AGENT), alg

    def __call__(self, method: str, token: str) -> dict[str, str]:
        """The metadata."""
        claims = {
            "aud": f"{AUDIENCE}/{method}",
            "wth": token_hash(token),
            "exp": int(time.time()) + 60,
            "jti": str(uuid.uuid4()),
        }
        proof = _signed(claims, self._claims, {"typ": "wpt+jwt"} | self._header, self._key, self._alg)
        return {"authorization": f"WPT {proof}", "workload-identity-token": token}


class Metadata:
    """These values, whatever is called."""

    def __init__(self, **values: str) -> None:
        """Take them; {token} stands for the token."""
        self._values = values

    def __call__(self, method: str, token: str) -> dict[str, str]:  # noqa: ARG002 - the hook's signature
        """The metadata."""
        return {name.replace("_", "-"): value.format(token=token) for name, value in self._values.items()}


def with_hmac(method: str, token: str) -> dict[str, str]:
    """A proof signed with HMAC, its key the one in the header."""
    header = b'{"typ":"dpop+jwt","alg":"HS256","jwk":{"kty":"oct","k":"c2VjcmV0"}}'
    proof = sign_raw(header, f'{{"htm":"POST","htu":"leasehold:///{method}"}}'.encode(), b"secret" * 8)
    return {"authorization": f"DPoP {token}", "dpop": proof}
