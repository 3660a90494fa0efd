"""What a collector makes of its own log: baselines, findings, and what is done about them."""

import contextlib
from collections.abc import AsyncIterator, Iterator

from leasehold_broker.adapters.prometheus_metrics import Sample
from leasehold_broker.config.anomalies import AnomaliesAt
from leasehold_broker.flows.find_anomalies import FindAnomalies
from leasehold_broker.flows.respond_to_findings import RespondToFindings
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.revocation_issuer import RevocationIssuer
from leasehold_broker.wire.event_body import decode_event
from leasehold_broker.wiring.collector_store import OpenStore
from leasehold_broker.wiring.supervision import Supervisor


@contextlib.asynccontextmanager
async def found_anomalies(
    at: AnomaliesAt, store: OpenStore, issuer: RevocationIssuer, clock: Clock, tasks: Supervisor
) -> AsyncIterator[FindAnomalies]:
    """Look for them while the context lasts.

    Raises:
        Refusal: STORE_UNAVAILABLE.
    """
    respond = RespondToFindings(issuer, at.responses, clock)
    finder = FindAnomalies(store.log, store.log, decode_event, respond, at.rules)
    await finder.start()
    async with tasks.keeping("anomalies", store.led_from_cursor("anomalies", finder)):
        yield finder


def finding_samples(finder: FindAnomalies) -> Iterator[Sample]:
    """Metrics of what was found."""
    responses = finder.respond
    yield Sample("findings", "Findings, and responses withheld.", finder.state.findings, counter=True)
    yield Sample("finding_revocations", "Revocations by findings.", responses.revoked, counter=True)
    yield Sample("finding_responses_withheld", "Revocations not made.", responses.withheld, counter=True)
    yield Sample("baselines", "Subjects with a baseline.", finder.subjects)
