"""The disk below the collector's file, looked at on the writer's thread. Implements `LogDisk`."""

from leasehold_broker.adapters.sqlite_collector.reserve import DiskReserve
from leasehold_broker.adapters.sqlite_collector.writer import GroupWriter
from leasehold_broker.domain.write_rank import WriteRank
from leasehold_broker.ports.log_disk import DiskState


class SqliteDisk:
    """Implements `LogDisk`."""

    def __init__(self, writer: GroupWriter, reserve: DiskReserve) -> None:
        """Share the writer of the collector's store, and its reserve."""
        self._writer = writer
        self._reserve = reserve

    @property
    def state(self) -> DiskState:
        """See the port."""
        return self._reserve.state

    async def look(self) -> DiskState:
        """See the port."""
        self._reserve.look_soon()
        # Looked at before each group: this one needs nothing of the disk.
        await self._writer.submit(lambda _connection: None, WriteRank.REVOCATIONS)
        return self._reserve.state
