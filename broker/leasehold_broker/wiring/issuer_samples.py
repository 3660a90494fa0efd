"""How the keys of issuers stand, for Prometheus: all their tokens are refused once what is known is too old."""

from collections.abc import Iterator

from leasehold_broker.adapters.jwt_identities import JwtIdentities
from leasehold_broker.adapters.prometheus_metrics import Sample


def issuer_samples(identities: JwtIdentities) -> Iterator[Sample]:
    """By the name that the configuration gives each."""
    for name, cache in identities.caches.items():
        label = ("issuer", name)
        yield Sample("issuer_keys_failing", "1 while the keys of an issuer are not had.", cache.failing, label=label)
