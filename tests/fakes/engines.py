"""The engines of a collector's log, for tests that ask every one: a file, and a schema of a real PostgreSQL."""

import contextlib
import itertools
from pathlib import Path

from leasehold_broker.adapters.postgres_collector import PostgresAt, open_store
from leasehold_broker.adapters.sqlite_collector import CollectorStore

_schemas = itertools.count(1)


class SqliteEngine:
    """Over one file."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        """In this folder."""
        self.path = folder / "engine.db"

    @contextlib.asynccontextmanager
    async def open(self, epoch="c1", *, stream="collector", accept_gaps=False):
        """One life of the collector's store."""
        store = CollectorStore(self.path, stream, epoch, accept_gaps=accept_gaps)
        try:
            yield store
        finally:
            await store.close()


class PostgresEngine:
    """Over a fresh schema."""

    name = "postgres"

    def __init__(self, server, **settings) -> None:
        """On this server."""
        self.at = PostgresAt(server.url(), f"test_{next(_schemas)}", **settings)

    @contextlib.asynccontextmanager
    async def open(self, epoch="c1", *, stream="collector", accept_gaps=False, issued=lambda: None):
        """One life of one replica's store."""
        async with open_store(self.at, stream, epoch, accept_gaps=accept_gaps, issued=issued) as store:
            yield store
