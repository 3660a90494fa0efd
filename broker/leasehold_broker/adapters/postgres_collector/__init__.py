"""The collector's log in PostgreSQL, shared by replicas: one order, one appender at a time, every replica stateless."""

from leasehold_broker.adapters.postgres_collector.connections import PostgresAt
from leasehold_broker.adapters.postgres_collector.leadership import lead
from leasehold_broker.adapters.postgres_collector.store import PostgresCollectorStore, open_store

__all__ = ["PostgresAt", "PostgresCollectorStore", "lead", "open_store"]
