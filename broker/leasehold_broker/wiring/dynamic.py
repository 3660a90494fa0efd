"""From the secret engines of the configuration to dynamic keys."""

from collections.abc import Mapping, Sequence

from leasehold_broker.config.engines import Engines
from leasehold_broker.flows.dynamic_keys import DynamicKeys
from leasehold_broker.flows.engine_leases import DynamicKey
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.privileges import Privileged


def dynamic_keys(
    tables: Sequence[Engines], clock: Clock, entropy: Entropy
) -> tuple[DynamicKeys, Mapping[str, tuple[Privileged, Sequence[str]]]]:
    """The dynamic keys of a sidecar, which connect to nobody yet; and its engines as `keys audit` wants them."""
    found: list[DynamicKey] = []
    privileged: dict[str, tuple[Privileged, Sequence[str]]] = {}
    for number, table in enumerate(tables):
        from leasehold_broker.wiring.vault import vault_engines  # noqa: PLC0415 - its client is large

        engine = vault_engines(table, clock)
        others = [
            other
            for other in tables
            if (other.address, other.namespace) == (table.address, table.namespace)
            and other.environment != table.environment
        ]
        apart = [f"auth/token/create/{other.token_role}" for other in others]
        privileged[f"engines[{number}] of {table.environment!r}"] = engine, apart
        found += [
            DynamicKey(
                key.name,
                key.provider,
                table.environment,
                key.version,
                engine,
                key.life_seconds,
                brokered=key.brokered,
            )
            for key in table.keys
        ]
    return DynamicKeys(found, clock, entropy), privileged
