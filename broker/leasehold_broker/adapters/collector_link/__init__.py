"""A sidecar's link to the collector: ships the outbox, takes revocations, keeps authority. Two streams."""

from leasehold_broker.adapters.collector_link.link import CollectorLink, LinkCounters
from leasehold_broker.adapters.collector_link.settings import Backoff, LinkSettings, TlsFiles
from leasehold_broker.adapters.collector_link.syncing import BudgetTie

__all__ = ["Backoff", "BudgetTie", "CollectorLink", "LinkCounters", "LinkSettings", "TlsFiles"]
