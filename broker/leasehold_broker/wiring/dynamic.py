"""From the secret engines of the configuration to dynamic keys."""

from collections.abc import Sequence

from leasehold_broker.config.engines import Engines
from leasehold_broker.flows.dynamic_keys import DynamicKeys
from leasehold_broker.flows.engine_leases import DynamicKey
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy


def dynamic_keys(tables: Sequence[Engines], clock: Clock, entropy: Entropy) -> DynamicKeys:
    """The dynamic keys of a sidecar; connects to nobody yet."""
    found: list[DynamicKey] = []
    for table in tables:
        from leasehold_broker.wiring.vault import vault_engines  # noqa: PLC0415 - its client is large

        engine = vault_engines(table, clock)
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
    return DynamicKeys(found, clock, entropy)
