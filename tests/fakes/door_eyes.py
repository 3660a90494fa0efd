"""Who is at the door of a collector that runs in a test."""

from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.config import CollectorConfig
from leasehold_broker.flows.collector_traps import CollectorTraps
from leasehold_broker.wiring.laid_traps import LaidTraps
from leasehold_broker.wiring.signals_door import DoorEyes


def eyes_of(config: CollectorConfig, store: CollectorStore) -> DoorEyes:
    """As a collector has them; netlink is left closed, so that nothing has to be closed."""
    records = CollectorTraps(store, SystemClock())
    return DoorEyes(KernelPeers(netlink=False), LaidTraps(config.honeytokens).sprung_by, records)
