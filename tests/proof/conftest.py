"""One real sidecar for all tests of proof: four issuers, each with another proof or replay policy, and its keys."""

import tempfile
import time
import uuid
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tests.fakes.certificates import Authority
from tests.fakes.issuer import ec_key, jwk, jwks, sign
from tests.fakes.own_sidecar import GRANT, OwnSidecar

KINDS = {
    "once": ("oidc", "https://once.test", 'replay = "single-use"'),
    "dpop": ("oidc", "https://dpop.test", 'replay = "off"\nproof = "dpop"'),
    "wit": ("spiffe", "spiffe://wit.test", 'replay = "off"\nproof = "wit"'),
    "mtls": ("spiffe", "spiffe://mtls.test", 'replay = "off"\nproof = "mtls"'),
    "bound": ("oidc", "https://bound.test", 'replay = "off"\nproof = "mtls"'),
    "none": ("oidc", "https://none.test", 'replay = "off"'),
}


def issuers(folder: Path) -> str:
    """The `[[issuers]]` tables; each issuer has a key of its own."""
    text = ""
    for name, (kind, issuer, more) in KINDS.items():
        use = {"wit": "wit-svid", "mtls": "jwt-svid"}.get(name, "sig")
        file = folder / f"{name}.json"
        file.write_bytes(jwks(jwk(ec_key(name), kid=name, use=use)))
        text += f"""
[[issuers]]
name = "{name}"
kind = "{kind}"
issuer = "{issuer}"
audience = "https://broker.test"
algorithms = ["ES256"]
jwks_file = "{file}"
labels = {{ environment = {{ fixed = "test" }} }}
{more}
"""
    return text


class Stage:
    """The sidecar, and everything that an agent of each issuer has."""

    def __init__(self, root: Path) -> None:
        """Prepare below `root`."""
        self.root = root
        self.authority = Authority()
        (root / "ca.pem").write_bytes(self.authority.pem)
        certificate, key = self.authority.issue().files(root, "server")
        grants = "".join(GRANT.format(name=name, issuer=issuer, extra="") for name, (_, issuer, _) in KINDS.items())
        tls = f"""address = "127.0.0.1:0"
[grpc.tls]
certificate = "{certificate}"
private_key = "{key}"
client_ca = "{root}/ca.pem"
"""
        self.tls = OwnSidecar(folder_of(root, "tls"), issuers(root), grants, tls)
        # Over the Unix socket there is no certificate to show: the same issuers, without the two that want one.
        plain = [
            text for text in issuers(root).split("\n\n[[issuers]]") if 'replay = "off"\nproof = "mtls"' not in text
        ]
        self.plain = OwnSidecar(folder_of(root, "plain"), "\n[[issuers]]".join(plain), grants)

    def token(self, name: str, **changes: object) -> str:
        """A workload token of one issuer; a claim given as None is left out."""
        kind, issuer, _ = KINDS[name]
        now = int(time.time())
        claims = {
            "iss": issuer,
            "sub": "agent",
            "aud": "https://broker.test",
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid.uuid4()),
        }
        if kind == "spiffe":
            claims |= {"iss": None, "sub": f"{issuer}/agent"}
        if name == "wit":
            claims |= {"aud": None, "cnf": {"jwk": jwk(ec_key("agent"), alg="ES256")}}
        members = claims | changes
        typ = "wit+jwt" if name == "wit" else "JWT"
        body = {claim: value for claim, value in members.items() if value is not None}
        return sign(body, ec_key(name), "ES256", kid=name, typ=typ)

    def key_file(self, name: str = "agent") -> Path:
        """A private key of an agent, as a file."""
        path = self.root / f"{name}.key"
        path.touch(mode=0o600)
        path.write_bytes(
            ec_key(name).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return path


def folder_of(root: Path, name: str) -> Path:
    """A private folder below `root`."""
    folder = root / name
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="session")
def stage():
    """Both sidecars' files; the paths are short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        yield Stage(Path(folder))


@pytest.fixture(scope="session")
def plain(stage):
    """The sidecar on its Unix socket, running."""
    with stage.plain.running() as sidecar:
        yield sidecar


@pytest.fixture(scope="session")
def secure(stage):
    """The sidecar that asks for client certificates, running."""
    with stage.tls.running() as sidecar:
        yield sidecar
