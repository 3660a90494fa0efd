"""Which stores tell what our logins may do, and what is there of other environments."""

from collections.abc import Iterator, Sequence
from typing import assert_never

from leasehold_broker.config.keys import AwsStore, AzureStore, GcpStore, Store, VaultStore
from leasehold_broker.ports.key_source import KeySource
from leasehold_broker.ports.privileges import Privileged


def privileged_stores(
    stores: Sequence[Store], sources: Sequence[KeySource]
) -> dict[str, tuple[Privileged, Sequence[str]]]:
    """Those of the stores that tell what our login may do, by a name for the finding."""
    return {
        f"stores[{number}] of {store.environment!r}": (source, list(dict.fromkeys(_apart(store, stores))))
        for number, (store, source) in enumerate(zip(stores, sources, strict=True))
        if isinstance(source, Privileged)
    }


def _apart(store: Store, stores: Sequence[Store]) -> Iterator[str]:
    """What other environments keep where this login could be of use."""
    for other in stores:
        if other.environment != store.environment and type(other) is type(store) and _within(store, other):
            yield from (_place(other, key.secret) for key in other.keys)


def _within(store: Store, other: Store) -> bool:
    """Whether the login of one could be known where the other keeps its secrets; of the same kind."""
    match store, other:
        case VaultStore(), VaultStore():
            return (store.address, store.namespace) == (other.address, other.namespace)
        case AwsStore(), AwsStore():
            # A name is looked for in the account and region of the login, where the other environment's may be, too.
            return (store.region, store.endpoint) == (other.region, other.endpoint)
        case GcpStore(), GcpStore():
            return store.endpoint == other.endpoint
        case _:
            return True


def _place(store: Store, secret: str) -> str:
    """A secret as the adapter of its kind is told of it."""
    match store:
        case VaultStore():
            return f"{store.mount}/data/{store.path}/{secret}"
        case AwsStore():
            return f"{store.path}/{secret}"
        case GcpStore():
            return f"projects/{store.project}/secrets/{store.path}-{secret}"
        case AzureStore():
            return f"{store.vault_url}/secrets/{store.path}-{secret}"
        case _:
            assert_never(store)
