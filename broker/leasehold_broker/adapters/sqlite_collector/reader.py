"""A thread that reads. Owns a read-only connection and its failures; sees what is committed, nothing else."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlite_utils import Database

from leasehold_broker.domain.reasons import Reason, Refusal

T = TypeVar("T")


class Reader:
    """Answers questions one after the other, off the event loop."""

    def __init__(self, path: Path, name: str) -> None:
        """Read this file, on a thread of this name; opened with the first question."""
        self._uri = f"{path.absolute().as_uri()}?mode=ro"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._database: Database | None = None

    async def ask(self, question: Callable[[Database], T]) -> T:
        """The answer.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """

        def answer() -> T:
            if self._database is None:
                self._database = Database(sqlite3.connect(self._uri, uri=True, timeout=5.0))
            return question(self._database)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, answer)
        except sqlite3.Error as error:
            raise Refusal(
                Reason.STORE_UNAVAILABLE,
                "the collector cannot read its store; its operators must look at the disk",
                detail=f"{type(error).__name__}: {error}",
                retry_after_seconds=5.0,
            ) from None

    async def close(self) -> None:
        """Finish the question that is being answered, then let go of the file."""

        def let_go() -> None:
            # On the pool's thread, behind the first question, which is what opens it.
            if self._database is not None:
                self._database.conn.close()

        await asyncio.get_running_loop().run_in_executor(self._pool, let_go)
        self._pool.shutdown()
