"""The sidecar's durable state in SQLite: leases, holds, budgets and the audit outbox, committed together."""

from leasehold_broker.adapters.sqlite_state.store import SqliteStateStore, StoreLimits

__all__ = ["SqliteStateStore", "StoreLimits"]
