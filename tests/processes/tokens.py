"""Tokens of the one issuer that the tests of processes have."""

import time

from tests.fakes.issuer import ec_key, sign

ISSUER = "https://process.test"


def token() -> str:
    """A workload token."""
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": "agent", "aud": "leasehold", "iat": now, "exp": now + 600}
    return sign(claims, ec_key("process"), "ES256", kid="k")
