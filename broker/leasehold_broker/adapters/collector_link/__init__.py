"""A sidecar's link to the collector: ships the outbox, takes revocations, keeps authority. Two streams."""

from leasehold_broker.adapters.collector_link.link import CollectorLink, LinkCounters
from leasehold_broker.adapters.collector_link.settings import Backoff, LinkSettings, TlsFiles

__all__ = ["Backoff", "CollectorLink", "LinkCounters", "LinkSettings", "TlsFiles"]
