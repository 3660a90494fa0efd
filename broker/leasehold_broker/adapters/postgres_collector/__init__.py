"""The collector's log in PostgreSQL, shared by replicas: one order, one appender at a time, every replica stateless."""

from leasehold_broker.adapters.postgres_collector.connections import PostgresAt
from leasehold_broker.adapters.postgres_collector.leadership import Leadership
from leasehold_broker.adapters.postgres_collector.opening import open_store
from leasehold_broker.adapters.postgres_collector.store import PostgresCollectorStore

__all__ = ["Leadership", "PostgresAt", "PostgresCollectorStore", "open_store"]
