"""The collector's SQLite file: audit log, revocations, known sidecars. One writer thread, two readers."""

from leasehold_broker.adapters.sqlite_collector.file_lock import StoreBusyError
from leasehold_broker.adapters.sqlite_collector.store import CollectorStore

__all__ = ["CollectorStore", "StoreBusyError"]
