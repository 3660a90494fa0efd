"""The prices in force: the table and the operator's file on top, watched, the last good ones kept."""

from collections.abc import Callable
from pathlib import Path

from leasehold_broker.adapters.watched_files import FilesRefusedError, WatchedFiles, read_guarded
from leasehold_broker.config.sidecar import PricesAt
from leasehold_broker.domain.price import ModelPrice
from leasehold_broker.providers import TableBook, shipped_table
from leasehold_broker.providers.prices.overrides import OVERRIDE_BYTES_MAX
from leasehold_broker.providers.prices.table import TABLE_BYTES_MAX


def load_prices(at: PricesAt, wall_ms: Callable[[], int] | None) -> TableBook:
    """The book that these files make.

    Raises:
        FilesRefusedError: they cannot be used; says why.
    """
    complaints: list[str] = []

    def read(path: Path | None, bytes_max: int) -> bytes | None:
        return None if path is None else read_guarded(str(path), bytes_max, complaints)

    table, override = read(at.table, TABLE_BYTES_MAX), read(at.override, OVERRIDE_BYTES_MAX)
    if complaints:
        raise FilesRefusedError(complaints)
    try:
        return TableBook(shipped_table() if table is None else table, override, wall_ms)
    except ValueError as error:
        raise FilesRefusedError([str(error)]) from error


class CurrentPrices:
    """The port `PriceBook`, over whichever version is in force."""

    def __init__(
        self,
        at: PricesAt,
        wall_ms: Callable[[], int],
        on_loaded: Callable[[str], None],
        on_rejected: Callable[[tuple[str, ...]], None],
    ) -> None:
        """Load the first version.

        Raises:
            FilesRefusedError: it cannot be used: without prices nothing may start.
        """

        def on_book(book: TableBook) -> None:
            on_loaded(book.version)

        paths = [str(path) for path in (at.table, at.override) if path is not None]
        self._files = WatchedFiles(lambda: paths, lambda: load_prices(at, wall_ms), on_book, on_rejected)
        self.reload = self._files.reload
        self.watch = self._files.watch

    @property
    def version(self) -> str:
        """Of what is in force: the one that is stored with every charge."""
        return self._files.current.version

    def price(self, provider: str, model: str) -> ModelPrice | None:
        """See the port."""
        return self._files.current.price(provider, model)
