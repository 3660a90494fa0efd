"""What a monitoring system can see of the issuers that a process believes."""

from tests.fakes.issuer import jwk, jwks, rsa_key
from tests.fakes.key_source import MemoryKeySource
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.adapters.jwt_identities import JwtIdentities
from leasehold_broker.domain.issuer import IssuerKind, IssuerRule, KeySource
from leasehold_broker.wiring.issuer_samples import issuer_samples

RULE = IssuerRule(
    name="oidc",
    issuer="https://issuer.example",
    kind=IssuerKind.OIDC,
    audience="leasehold",
    algorithms=frozenset({"RS256"}),
    keys=KeySource(url="https://issuer.example/jwks"),
)


async def test_an_issuer_whose_keys_cannot_be_fetched_shows_until_they_can():
    """By its name, long before the keys that are known grow too old to be believed."""
    source = MemoryKeySource(jwks(jwk(rsa_key("k"), kid="k")), fetches_per_minute=10)
    identities = JwtIdentities([RULE], ManualClock(), sources={"oidc": source})
    seen = []
    for down in (False, True, False):
        source.down = down
        await identities.caches["oidc"].refresh()
        seen += [(each.name, each.label, each.value) for each in issuer_samples(identities)]
    assert seen == [("issuer_keys_failing", ("issuer", "oidc"), failing) for failing in (False, True, False)]
