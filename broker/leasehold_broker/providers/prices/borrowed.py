"""Prices for a host that has none under its own name: those of the vendor that an operator named for it."""

from collections.abc import Mapping

from leasehold_broker.domain.price import ModelPrice
from leasehold_broker.ports.provider import PriceBook


class BorrowedPrices:
    """The port `PriceBook` over another: a price under a host's own name first, then one under the vendor's."""

    def __init__(self, book: PriceBook, borrowed: Mapping[str, str]) -> None:
        """Args: book: all prices; borrowed: host to the vendor whose prices hold there."""
        self._book = book
        self._borrowed = borrowed

    def price(self, provider: str, model: str) -> ModelPrice | None:
        """See the port."""
        own = self._book.price(provider, model)
        vendor = self._borrowed.get(provider, "")
        return own if own is not None or not vendor else self._book.price(vendor, model)
