"""A small OIDC issuer: discovery, JWKS and tokens, on loopback. Owns its keys; refuses to talk to anyone but the demo.

It lives in the demo's own loop. Tokens are written where a platform would project them: a file per workload, mode
600.
"""

import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

TOKEN_SECONDS = 600
_Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Issuer:
    """Signs workload tokens with a key of its own; `rotate` starts the next one and keeps the old one published."""

    def __init__(self, algorithm: str = "ES256") -> None:
        """Make the first key.

        Args:
            algorithm: "ES256" or "RS256".
        """
        self._algorithm = algorithm
        self._keys: list[tuple[str, _Key]] = []
        self._runner: web.AppRunner | None = None
        self.url = ""
        self.rotate()

    @property
    def jwks_url(self) -> str:
        """Where the public keys are."""
        return f"{self.url}/jwks.json"

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; port 0 takes a free one."""
        application = web.Application()
        application.router.add_get("/.well-known/openid-configuration", self._discovery)
        application.router.add_get("/jwks.json", self._jwks)
        self._runner = web.AppRunner(application, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def rotate(self) -> None:
        """Sign with a new key from now on; the last two keys are published."""
        key: _Key
        if self._algorithm == "ES256":
            key = ec.generate_private_key(ec.SECP256R1())
        else:
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        number = int(self._keys[-1][0].rpartition("-")[2]) + 1 if self._keys else 1
        self._keys = [*self._keys[-1:], (f"demo-{number}", key)]

    def mint(
        self, subject: str, audience: str, claims: Mapping[str, Any] | None = None, seconds: int = TOKEN_SECONDS
    ) -> str:
        """A workload token for `subject`, good for `audience` only, with an id of its own."""
        now = int(time.time())
        name, key = self._keys[-1]
        body = {
            "iss": self.url,
            "sub": subject,
            "aud": audience,
            "iat": now,
            "exp": now + seconds,
            "jti": secrets.token_hex(16),
            **(claims or {}),
        }
        return jwt.encode(body, key, algorithm=self._algorithm, headers={"kid": name})

    def project(self, path: Path, subject: str, audience: str, claims: Mapping[str, Any] | None = None) -> Path:
        """Mint into a file that only its owner can read; replaces it in one step, as platforms do."""
        fresh = path.with_suffix(".new")
        with open(fresh, "w", encoding="ascii", opener=_private) as file:
            file.write(self.mint(subject, audience, claims))
        return fresh.replace(path)

    async def _discovery(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(
            {
                "issuer": self.url,
                "jwks_uri": self.jwks_url,
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [self._algorithm],
            }
        )

    async def _jwks(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"keys": [_public(name, key, self._algorithm) for name, key in self._keys]})


def _public(name: str, key: _Key, algorithm: str) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        text = RSAAlgorithm.to_jwk(key.public_key())
    else:
        text = ECAlgorithm.to_jwk(key.public_key())
    members: dict[str, Any] = json.loads(text)
    members.pop("key_ops", None)
    return {**members, "kid": name, "use": "sig", "alg": algorithm}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
