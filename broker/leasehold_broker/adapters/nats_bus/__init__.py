"""What replicas of a collector share through NATS JetStream: batches on their way to the log, and revocations."""

from leasehold_broker.adapters.nats_bus.connection import NatsAt
from leasehold_broker.adapters.nats_bus.ingest import NatsIngest
from leasehold_broker.adapters.nats_bus.revocations import NatsRevocations

__all__ = ["NatsAt", "NatsIngest", "NatsRevocations"]
