"""Have a key rotated that was in other hands. Owns which of the events that ask for it are still to be heeded.

A sidecar says in the audit log that a lease is over under which a key was handed out. Follows the log as a sink does:
in order, from where it was, again after a failure.
"""

from collections.abc import Callable, Mapping, Sequence

from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.rotation import Trigger
from leasehold_broker.flows.request_rotation import RequestRotation
from leasehold_broker.flows.rotated_key import AnyRotated, RotatedKey
from leasehold_broker.ports.event_sink import SinkFailedError
from leasehold_broker.ports.key_source import FINAL, SourceFault


class RotateDisclosed:
    """Implements `EventSink`."""

    def __init__(
        self, request: RequestRotation, keys: Mapping[str, AnyRotated], read: Callable[[bytes], Event]
    ) -> None:
        """Ask through `request`; `read` tells an event from its bytes."""
        self._request = request
        self._keys = keys
        self._read = read

    async def deliver(self, records: Sequence[StoredRecord]) -> None:
        """See the port. Events of keys that are not rotated here, or have another value by now, are passed over."""
        for stored in records:
            try:
                details = self._read(stored.record.body).details
            except ValueError:  # of a later version of the sidecar
                continue
            key, version = self._keys.get(str(details.get("key"))), details.get("version")
            if isinstance(key, RotatedKey) and isinstance(version, int):
                await self._ask(stored, key, version)

    async def close(self) -> None:
        """See the port."""

    async def _ask(self, stored: StoredRecord, key: RotatedKey, version: int) -> None:
        record = stored.record
        try:
            found = await key.store.read(key.name)
            if (found.created_wall_ms if found.number is None else found.number) > version:
                return
            event = f"{record.stream}/{record.epoch}/{record.sequence}"
            await self._request.wish(f"sidecar {record.stream}", event, key.name, Trigger.DISCLOSED)
        except SourceFault as fault:
            if fault.state not in FINAL:
                raise SinkFailedError(str(fault)) from None
        except Refusal as refusal:
            raise SinkFailedError(refusal.message) from None
