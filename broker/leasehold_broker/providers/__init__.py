"""The vendors. Owns the list of providers; each is pure: bytes and values in, values out, no sockets, no clock."""

from leasehold_broker.ports.provider import Provider
from leasehold_broker.providers.anthropic import Anthropic
from leasehold_broker.providers.gemini import Gemini
from leasehold_broker.providers.openai import OpenAI
from leasehold_broker.providers.prices.book import TableBook, load_price_book, shipped_table

__all__ = ["TableBook", "all_providers", "load_price_book", "shipped_table"]


def all_providers() -> dict[str, Provider]:
    """Every provider, by its name in scopes and paths."""
    providers: tuple[Provider, ...] = (Anthropic(), OpenAI(), Gemini())
    return {provider.name: provider for provider in providers}
