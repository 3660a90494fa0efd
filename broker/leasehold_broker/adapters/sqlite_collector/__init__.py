"""The collector's SQLite file: audit log, revocations, known sidecars. One writer thread, two readers."""

from leasehold_broker.adapters.sqlite_collector.store import CollectorStore, StoreBusyError

__all__ = ["CollectorStore", "StoreBusyError"]
