"""Makes chained streams of events, as a sidecar's store would."""

from leasehold_broker.domain.audit_chain import GENESIS, ChainedRecord, chain
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.wire.event_body import encode_event


def call_event(number: int, *, lease: str = "leases/a", key: str = "anthropic-prod", subject: str = "agent") -> Event:
    """The event of one admitted call."""
    return Event(
        EventType.CALL_ADMITTED,
        1_700_000_000_000 + number,
        Outcome.ALLOWED,
        subject=Subject("https://idp.example", subject, {"environment": "prod"}),
        lease=lease,
        request_id=f"request-{number}",
        details={"key": key, "call": f"call-{number}", "held": {"cost_micro_usd": 1200, "requests": 1}},
    )


class Emitter:
    """One life of one stream: numbers and chains events."""

    def __init__(self, stream: str = "sidecar-1", epoch: str = "e1") -> None:
        """Start the life, empty."""
        self.stream = stream
        self.epoch = epoch
        self.sequence = 0
        self.digest = GENESIS

    def emit(self, event: Event) -> ChainedRecord:
        """The next record."""
        return self.put(encode_event(event))

    def put(self, body: bytes) -> ChainedRecord:
        """The next record, with any body."""
        record = chain(self.stream, self.epoch, self.sequence + 1, self.digest, body)
        self.sequence, self.digest = record.sequence, record.digest
        return record

    def calls(self, count: int) -> list[ChainedRecord]:
        """The next `count` records, all admitted calls."""
        return [self.emit(call_event(self.sequence + 1)) for _ in range(count)]
