"""What a collector measures of itself, for Prometheus."""

from collections.abc import Iterator, Sequence

from leasehold_broker.adapters.prometheus_metrics import Sample
from leasehold_broker.flows.collector_records import CollectorRecords
from leasehold_broker.flows.feed_sinks import FeedSink
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.fleet_escrow import FleetEscrow
from leasehold_broker.flows.ingest_events import IngestEvents
from leasehold_broker.flows.publish_checkpoint import PublishCheckpoint
from leasehold_broker.ports.revocation_issuer import RevocationIssuer
from leasehold_broker.wiring.collector_sinks import sink_samples
from leasehold_broker.wiring.collector_store import CollectorLog


def collector_samples(
    fleet: Fleet,
    records: CollectorRecords,
    ingest: IngestEvents,
    publish: PublishCheckpoint,
    feeds: Sequence[FeedSink],
    log: CollectorLog,
    issuer: RevocationIssuer,
    escrow: FleetEscrow,
) -> Iterator[Sample]:
    """Sidecars, revocations, records, checkpoints, sinks and refusals, as they are now."""
    behind = len(issuer.behind().applied)
    yield Sample("collector_sidecars_connected", "Sidecars with a session.", fleet.connected_count())
    yield Sample("collector_sidecars_known", "Sidecars ever seen.", len(fleet.members))
    yield Sample("collector_sessions_superseded", "Sessions that a newer one ended.", fleet.superseded, counter=True)
    yield Sample("collector_revocation_epoch", "Newest revocation.", log.epoch())
    yield Sample("collector_sidecars_behind", "Sidecars that may still admit what is revoked.", behind)
    yield Sample("fleet_budget_conflicts", "Slices another replica put first.", escrow.conflicts, counter=True)
    yield Sample("collector_log_events", "Events in the log.", log.last_position())
    yield Sample("collector_records", "Audit records taken.", ingest.records_taken, counter=True)
    yield Sample("collector_batches", "Batches taken.", ingest.batches_taken, counter=True)
    yield Sample("collector_checkpoints", "Checkpoints published.", publish.published, counter=True)
    yield Sample(
        "collector_records_signed_from_memory",
        "Records signed without reading back what this process itself had placed.",
        publish.remembered,
        counter=True,
    )
    newest = publish.newest
    size = 0 if newest is None else newest.head.size
    yield Sample("collector_checkpoint_events", "Events that the newest checkpoint covers.", size)
    if newest is not None:
        signed = newest.sign_wall_ms / 1000
        yield Sample("collector_checkpoint_timestamp_seconds", "When the newest checkpoint was signed.", signed)
    failing = bool(publish.copy_failing)
    yield Sample("collector_checkpoint_copy_failing", "1 while checkpoint_copy is not written.", failing)
    yield from sink_samples(feeds)
    for reason, count in tuple(records.refusals.items()):
        yield Sample("refusals", "Refusals by reason.", count, counter=True, label=("reason", reason))
