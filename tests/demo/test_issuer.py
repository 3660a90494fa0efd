"""The demo's issuer signs what the broker's own verifier accepts, also after a rotation."""

import aiohttp
import pytest

from leasehold_broker.adapters.jwt_identities import JwtIdentities
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.demo.issuer import Issuer
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.issuer import IssuerKind, IssuerRule, KeySource, LabelRule
from leasehold_broker.domain.reasons import Refusal


@pytest.fixture(params=["ES256", "RS256"])
async def issuer(request):
    """A running issuer."""
    made = Issuer(request.param)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def identities(issuer):
    """The sidecar's verifier, told to believe it."""
    rule = IssuerRule(
        "demo",
        issuer.url,
        IssuerKind.OIDC,
        "leasehold",
        frozenset({"ES256", "RS256"}),
        KeySource(url=issuer.jwks_url),
        labels=(LabelRule("environment", path=("environment",)),),
    )
    verifier = JwtIdentities((rule,), SystemClock())
    await verifier.start()
    yield verifier
    await verifier.aclose()


async def test_its_tokens_verify(issuer, identities):
    """Subject and labels come through."""
    token = issuer.mint("agents/a", "leasehold", {"environment": "demo"})

    identity = await identities.verify(token, Peer(uid=1000), SystemClock().now())

    assert identity.subject.subject == "agents/a"
    assert identity.subject.labels == {"environment": "demo"}


async def test_a_rotated_key_is_picked_up(issuer, identities):
    """The first token of a new key verifies, and those of the old one still do."""
    old = issuer.mint("agents/a", "leasehold")
    issuer.rotate()

    assert (
        await identities.verify(issuer.mint("agents/b", "leasehold"), Peer(uid=1), SystemClock().now())
    ).subject.subject == "agents/b"
    assert (await identities.verify(old, Peer(uid=1), SystemClock().now())).subject.subject == "agents/a"


async def test_another_audience_is_refused(issuer, identities):
    """A token for the collector is no good at a sidecar."""
    with pytest.raises(Refusal):
        await identities.verify(issuer.mint("agents/a", "leasehold-collector"), Peer(uid=1), SystemClock().now())


async def test_discovery_names_the_keys(issuer):
    """Its discovery document leads to its key set."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{issuer.url}/.well-known/openid-configuration") as answer:
            document = await answer.json()
        async with session.get(document["jwks_uri"]) as answer:
            keys = (await answer.json())["keys"]

    assert document["issuer"] == issuer.url
    assert [key["use"] for key in keys] == ["sig"]
    assert not any("d" in key for key in keys)


def test_projected_tokens_are_private(tmp_path):
    """A workload's token file is readable by its owner only, and replaced in one step."""
    issuer = Issuer()
    path = issuer.project(tmp_path / "a.jwt", "agents/a", "leasehold")
    first = path.read_text()
    issuer.project(path, "agents/b", "leasehold")

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() != first
    assert [path] == list(tmp_path.iterdir())
