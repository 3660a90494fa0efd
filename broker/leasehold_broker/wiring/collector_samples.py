"""What a collector measures of itself, for Prometheus."""

from collections.abc import Iterator, Sequence

from leasehold_broker.adapters.prometheus_metrics import Sample
from leasehold_broker.flows.collector_records import CollectorRecords
from leasehold_broker.flows.feed_sinks import FeedSink
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.ingest_events import IngestEvents
from leasehold_broker.flows.publish_checkpoint import PublishCheckpoint
from leasehold_broker.wiring.collector_sinks import sink_samples


def collector_samples(
    fleet: Fleet,
    records: CollectorRecords,
    ingest: IngestEvents,
    publish: PublishCheckpoint,
    feeds: Sequence[FeedSink],
) -> Iterator[Sample]:
    """Sidecars, records, checkpoints, sinks and refusals, as they are now."""
    yield Sample("collector_sidecars_connected", "Sidecars with a session.", fleet.connected_count())
    yield Sample("collector_sidecars_known", "Sidecars ever seen.", len(fleet.members))
    yield Sample("collector_records", "Audit records taken.", ingest.records_taken, counter=True)
    yield Sample("collector_batches", "Batches taken.", ingest.batches_taken, counter=True)
    yield Sample("collector_checkpoints", "Checkpoints published.", publish.published, counter=True)
    yield Sample(
        "collector_records_signed_from_memory",
        "Records signed without reading back what this process itself had placed.",
        publish.remembered,
        counter=True,
    )
    size = 0 if publish.newest is None else publish.newest.head.size
    yield Sample("collector_checkpoint_events", "Events that the newest checkpoint covers.", size)
    failing = bool(publish.copy_failing)
    yield Sample("collector_checkpoint_copy_failing", "1 while checkpoint_copy is not written.", failing)
    yield from sink_samples(feeds)
    for reason, count in tuple(records.refusals.items()):
        yield Sample("refusals", "Refusals by reason.", count, counter=True, label=("reason", reason))
