"""Take a sidecar's audit records into the log. Owns who may write which stream; the store owns order and chain."""

from collections.abc import Callable, Sequence

from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_store import EventStore, RecordTaker

BATCH_RECORDS_MAX = 200
BODY_BYTES_MAX = 64 * 1024


class IngestEvents:
    """Stores batches, each in full or not at all."""

    def __init__(self, store: RecordTaker, log: EventStore, clock: Clock, may_take: Callable[[], None]) -> None:
        """Store there.

        Args:
            store: the log, or what keeps records for it.
            log: that knows how lives ended.
            clock: for the time of receipt.
            may_take: raises a Refusal while the log takes no more; nothing is stored then, and nothing acknowledged.
        """
        self._store = store
        self._log = log
        self._may_take = may_take
        self._clock = clock
        self.records_taken = 0
        self.batches_taken = 0

    async def run(self, sidecar: str, records: Sequence[ChainedRecord]) -> tuple[str, int]:
        """Store a batch of the sidecar's own stream.

        Returns:
            Epoch and sequence up to which that life of the stream is synced here: the last record's.

        Raises:
            Refusal: FIELD_INVALID, SIDECAR_BANNED (another's stream), those of `EventStore.append`, and of `may_take`.
        """
        if not 0 < len(records) <= BATCH_RECORDS_MAX:
            raise field_invalid("records", f"must be 1 to {BATCH_RECORDS_MAX}, were {len(records)}")
        for record in records:
            if record.stream != sidecar:
                raise Refusal(
                    Reason.SIDECAR_BANNED,
                    f"sidecar {sidecar!r} may write only its own stream; check the name in its configuration",
                    detail=f"tried to write stream {record.stream!r}",
                )
            if len(record.body) > BODY_BYTES_MAX:
                raise field_invalid("body", f"must be at most {BODY_BYTES_MAX} bytes, was {len(record.body)}")
        self._may_take()
        try:
            await self._store.append(sidecar, records, self._clock.now().wall_ms)
        except Refusal as refusal:
            if refusal.reason is Reason.AUDIT_EPOCH_FENCED:
                await self._log.cut_off(sidecar, records, self._clock.now().wall_ms)
            raise
        self.records_taken += len(records)
        self.batches_taken += 1
        return records[-1].epoch, records[-1].sequence
