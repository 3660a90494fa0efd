"""A certified OpenID provider as the one issuer: of the agent's tokens here, and of the sidecar's at OpenBao."""

import base64
import json
import tempfile
import urllib.error
import uuid
from pathlib import Path

import pytest
from tests.e2e.test_keys_elsewhere import PLANTED, ask, provider
from tests.fakes import openid_provider
from tests.fakes.own_sidecar import GRANT, OwnSidecar

from leasehold import LeaseholdClient
from leasehold.errors import IdentityRejected
from leasehold.http import openai_kwargs

__all__ = ["provider"]
pytestmark = [pytest.mark.timeout(150)]
ISSUERS = """
[[issuers]]
name = "certified"
kind = "oidc"
issuer = "{issuer}"
audience = "leasehold"
algorithms = ["ES256"]
token_types = ["at+jwt"]
replay = "bind-first-peer"
jwks_url = "{jwks}"
labels = {{ environment = {{ path = ["environment"] }} }}
"""
STORE = """
[providers.openai]
origin = "http://127.0.0.1:{provider}"
allow_private = true
[[keys.stores]]
kind = "vault"
environment = "test"
path = "{path}"
address = "{bao}"
login = {{ method = "jwt", mount = "{mount}", role = "sidecar", token_file = "vault-jwt" }}
keys = [{{ name = "openai-vault", provider = "openai", secret = "openai" }}]
"""


@pytest.fixture(scope="module")
def issuer():
    """It, running."""
    if not openid_provider.installed():
        pytest.skip("no node 20 with oidc-provider here: npm ci --prefix tests/fakes/oidc")
    with openid_provider.running() as found:
        yield found


@pytest.fixture
def mount(bao, issuer):
    """A JWT login at OpenBao that finds the issuer's keys by discovery, and takes the sidecar's tokens for "vault"."""
    mount = f"jwt-{uuid.uuid4().hex}"
    bao.ask("POST", f"sys/auth/{mount}", {"type": "jwt"})
    config = {"oidc_discovery_url": issuer.issuer, "bound_issuer": issuer.issuer}
    bao.ask("POST", f"auth/{mount}/config", config)
    bao.policy(f"reads-{mount}", f"secret/data/{mount}/*")
    role = {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": ["vault"],
        "bound_claims": {"environment": "test"},
        "token_policies": [f"reads-{mount}"],
        "token_ttl": "60s",
        "allowed_redirect_uris": [],
    }
    bao.ask("POST", f"auth/{mount}/role/sidecar", role)
    bao.put(f"{mount}/openai", value=f"{PLANTED}-1")
    return mount


def claims(token: str) -> dict:
    """What a token says."""
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_one_issuer_for_agent_and_store(bao, issuer, mount, provider):
    """The agent's token gives a lease, the sidecar's a login; the audiences keep the two apart."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        root = Path(folder)
        for_vault = issuer.token("vault")
        (root / "vault-jwt").write_text(for_vault)
        more = STORE.format(provider=provider[0].server_port, path=mount, bao=bao.address, mount=mount)
        grant = GRANT.format(name="test", issuer=issuer.issuer, extra="").replace("openai-test", "openai-vault")
        own = OwnSidecar(root, ISSUERS.format(issuer=issuer.issuer, jwks=issuer.jwks_url), grant, more=more)
        for_us = issuer.token("leasehold")
        assert claims(for_us)["aud"] == "leasehold"
        with own.running():
            with LeaseholdClient(own.target, for_us) as client, client.acquire(provider="openai", ttl="5m") as lease:
                assert ask(openai_kwargs(lease))[0] == 200
            assert provider[1] == [f"Bearer {PLANTED}-1"]
            acquired = own.event("lease.acquired")
            assert acquired["subject"]["subject"] == openid_provider.CLIENT
            with LeaseholdClient(own.target, for_vault) as client, pytest.raises(IdentityRejected):
                client.acquire(provider="openai", ttl="5m")
            assert own.event("identity.refused")["reason"] == "AUDIENCE_MISMATCH"


def test_a_login_with_the_agents_token_is_refused(bao, issuer, mount):
    """What is meant for the sidecar opens nothing at OpenBao."""
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        bao.ask("POST", f"auth/{mount}/login", {"role": "sidecar", "jwt": issuer.token("leasehold")})
    caught.value.close()
    assert bao.ask("POST", f"auth/{mount}/login", {"role": "sidecar", "jwt": issuer.token("vault")})["auth"]
