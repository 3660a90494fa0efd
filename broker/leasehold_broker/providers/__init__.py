"""The vendors. Owns the list of providers; each is pure: bytes and values in, values out, no sockets, no clock."""

from collections.abc import Mapping

from leasehold_broker.domain.host_settings import HostSettings
from leasehold_broker.ports.provider import Provider
from leasehold_broker.providers import hosts, openai
from leasehold_broker.providers.anthropic import Anthropic
from leasehold_broker.providers.azure import Azure
from leasehold_broker.providers.bedrock import Bedrock
from leasehold_broker.providers.cohere import Cohere
from leasehold_broker.providers.gemini import Gemini
from leasehold_broker.providers.openai import OpenAI
from leasehold_broker.providers.openai_host import OpenAIHost
from leasehold_broker.providers.prices.book import TableBook, load_price_book, shipped_table
from leasehold_broker.providers.vertex import Vertex

__all__ = ["TableBook", "all_providers", "load_price_book", "shipped_table"]


def all_providers(declared: Mapping[str, HostSettings] | None = None) -> dict[str, Provider]:
    """Every provider, by its name in scopes and paths.

    Args:
        declared: hosts beside the vendors that have a public address of their own, by name.

    Raises:
        KeyError: a declared host is of a kind that is not known.
        ValueError: a declared host's settings cannot be used; says why.
    """
    fixed: tuple[Provider, ...] = (
        Anthropic(),
        Bedrock(),
        OpenAI(),
        Gemini(),
        Cohere(),
        *map(OpenAIHost, hosts.SHAPES.values()),
    )
    providers = {provider.name: provider for provider in fixed}
    for name, settings in (declared or {}).items():
        providers[name] = _declared(name, settings)
    return dict(sorted(providers.items()))


def _declared(name: str, settings: HostSettings) -> Provider:
    match settings.kind:
        case "azure":
            return Azure(name, settings.deployments)
        case "vertex":
            return Vertex(settings.project, settings.location or "global", name)
        case "bedrock":
            return Bedrock(settings.location or "us-east-1", name)
        case "openai":
            shape = openai.SHAPE
        case "openai_compatible":
            shape = hosts.compatible(settings)
        case kind:
            shape = hosts.SHAPES[kind]
    return OpenAIHost(hosts.tuned(shape, name, settings))
