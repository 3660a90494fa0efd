"""A collector's endpoints for alerts, from its configuration to the server that is told."""

import asyncio
import json
import tempfile
from pathlib import Path

from tests.config.test_collector_config import GOOD, write
from tests.fakes.centre import eventually
from tests.fakes.receivers import HttpReceiver

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.config import load_collector
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.wiring.collector_alerts import alert_samples, last_words, sent_alerts, watched
from leasehold_broker.wiring.collector_store import OpenStore
from leasehold_broker.wiring.supervision import Supervisor

TROUBLE = Event(EventType.KEY_TAKEN_OUT, 5, Outcome.FAILED, details={"key": "prod", "message": "401"})


def configured(folder: Path, url: str) -> Path:
    """A collector's configuration with one pager."""
    (folder / "pager.url").touch(0o600)
    (folder / "pager.url").write_text(url)
    text = GOOD + f'[grpc]\nsocket = "{folder}/c.sock"\n'
    text += '[[alerts]]\nname = "pager"\nkind = "webhook"\nurl_file = "pager.url"\n'
    return write(folder, text)


def keys_of(place: HttpReceiver) -> list[str]:
    """Keys of the alerts that it was sent."""
    return [json.loads(body)["data"]["key"] for _, _, body in place.requests]


async def test_a_collector_tells_its_pager_once_and_the_next_life_repeats_nothing():
    """From the configuration file to the receiving server."""
    with HttpReceiver() as place, tempfile.TemporaryDirectory(prefix="lh-") as name:
        config = load_collector(configured(Path(name), f"{place.url}/in"))
        for life in ("c1", "c2"):
            store = CollectorStore(Path(name) / "c.db", "centre", life)
            tasks = Supervisor(SystemClock(), store.record)
            async with asyncio.timeout(240), sent_alerts(config.alerts, OpenStore(store), "centre", tasks) as (pager,):
                await store.record(TROUBLE)
                await eventually(lambda: place.requests)
                await eventually(lambda pager=pager: pager.lag_records() == 0)
                samples = {sample.name: sample.value for sample in alert_samples([pager])}
            await store.close()
        assert keys_of(place) == ["key.taken_out/prod"]
        assert samples["alerts_held_back"] == 1
        assert [one.name for one in watched((), [pager])] == ["alerts pager"]


async def test_a_collector_that_gives_up_says_so_before_it_is_gone():
    """Its log was altered: the pager is told while it still can be; a store that takes nothing delays by its bound."""
    with HttpReceiver() as place, tempfile.TemporaryDirectory(prefix="lh-") as name:
        config = load_collector(configured(Path(name), f"{place.url}/in"))
        store = CollectorStore(Path(name) / "c.db", "centre", "c1")
        tasks = Supervisor(SystemClock(), store.record)
        async with asyncio.timeout(240), sent_alerts(config.alerts, OpenStore(store), "centre", tasks) as senders:
            await last_words("record 7 does not read back as it was accepted", store, SystemClock(), senders)
        await store.close()
        assert keys_of(place) == ["collector.failed/centre"]
        await last_words("again", store, SystemClock(), senders)  # the store is closed: it refuses, and that is all
