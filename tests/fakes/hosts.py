"""Every provider there is, with one of each kind that an operator has to declare."""

from leasehold_broker.domain.host_settings import AZURE, COMPATIBLE, VERTEX, HostSettings
from leasehold_broker.ports.provider import Provider
from leasehold_broker.providers import all_providers

DEPLOYMENTS = {"my-o3": "o3-mini", "my-small": "gpt-4o-mini", "my-embedding": "text-embedding-3-small"}
DECLARED = {
    "azure": HostSettings(AZURE, deployments=DEPLOYMENTS),
    "vertex": HostSettings(VERTEX, project="acme-research", location="global"),
    "own-llm": HostSettings(COMPATIBLE, image_tokens_max=4096, extra_fields=("guided_choice",)),
}
PROVIDERS: dict[str, Provider] = all_providers(DECLARED)
