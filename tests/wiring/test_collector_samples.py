"""What a monitoring system can see of a collector: who is behind, how long the log is, when it was signed."""

import asyncio
import uuid

from tests.fakes.centre import Centre, Operator, Sidecar, eventually
from tests.fakes.streams import Emitter

from leasehold.v1 import revocation_service_pb2 as pb
from leasehold_broker.ports.revocation_log import KnownSidecar, SidecarReport
from leasehold_broker.wiring.collector_samples import collector_samples


def shown(centre) -> dict[str, float]:
    """Of one collector, by name."""
    samples = collector_samples(
        centre.fleet, centre.records, centre.ingest, centre.publish, (), centre.store, centre.issuer, centre.escrow
    )
    return {each.name: each.value for each in samples if each.label is None}


async def test_a_sidecar_that_has_not_applied_a_revocation_shows(tmp_path):
    """One that acknowledges is not behind, one that is known and silent is, until it refuses by itself."""
    async with (
        asyncio.timeout(240),
        Centre(tmp_path, authority_seconds=3600.0) as centre,
        Sidecar(centre.target) as sidecar,
        Operator(centre.target, "alice/responder") as alice,
    ):
        await eventually(lambda: centre.fleet.connected_count() == 1)
        silent = KnownSidecar("sidecar-2", "test", "1", 0, centre.clock.now().wall_ms, 0)
        await centre.store.heard([SidecarReport(silent, ())])
        centre.fleet.restore([silent], centre.clock.now())
        before = shown(centre)
        request = pb.RevokeLeasesRequest(request_id=str(uuid.uuid4()), selector=pb.RevocationSelector(key="k"))
        await alice.revocations.RevokeLeases(request, **alice.how)
        await sidecar.sink.reached(1)
        await eventually(lambda: centre.fleet.members["sidecar-1"].known.applied_epoch == 1)
        after = shown(centre)
        asked = ("collector_revocation_epoch", "collector_sidecars_behind", "collector_sessions_superseded")
        assert [before[name] for name in asked] == [0, 0, 0]
        assert [after[name] for name in asked] == [1, 1, 0]


async def test_how_far_the_log_is_signed_shows(tmp_path):
    """Its length, what the newest checkpoint covers of it, and when that was signed."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre:
        assert "collector_checkpoint_timestamp_seconds" not in shown(centre)
        await centre.store.append("sidecar-1", Emitter().calls(3), 1)
        await eventually(lambda: shown(centre)["collector_checkpoint_events"] == 3)
        told = shown(centre)
        assert told["collector_log_events"] == 3
        assert told["collector_checkpoint_timestamp_seconds"] == centre.publish.newest.sign_wall_ms / 1000
