"""A replica of a collector for tests: a whole Centre over a PostgreSQL that it shares with others."""

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from tests.fakes.bus import kept_going
from tests.fakes.centre import CHECKPOINT_SECONDS, Centre
from tests.fakes.rpc import SystemClock

from leasehold_broker.adapters.checkpoint_key import open_checkpoint_key
from leasehold_broker.adapters.postgres_collector import PostgresAt, open_store
from leasehold_broker.config.collector_nats import NatsBus
from leasehold_broker.domain.fleet_budget import FleetBudget
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.follow_evictions import FollowEvictions
from leasehold_broker.flows.share_fleet import ShareFleet
from leasehold_broker.wire.event_body import decode_event
from leasehold_broker.wiring import collector_bus
from leasehold_broker.wiring.collector_store import OpenStore


class Replica:
    """One life of one replica; its folder holds nothing but its socket and a copy of the key."""

    def __init__(
        self,
        folder: Path,
        at: PostgresAt,
        name: str,
        epoch: str,
        *,
        key: Path,
        authority_seconds: float = 60.0,
        fleet_budgets: Sequence[FleetBudget] = (),
        bus: NatsBus | None = None,
        sidecars: int = 3,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        """Build it; the context serves. `bus`: the NATS that its records go through."""
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._at = at
        self._name = name
        self._epoch = epoch
        self._authority_seconds = authority_seconds
        self._fleet_budgets = fleet_budgets
        self._bus = bus
        self._sidecars = sidecars
        self._checkpoint_seconds = checkpoint_seconds
        self._stack = contextlib.AsyncExitStack()
        self.failures: list[str] = []
        (folder / "collector.sock").unlink(missing_ok=True)
        shutil.copy(key, folder / "checkpoint.key")

    async def __aenter__(self) -> Self:
        """Serve."""
        fleet = Fleet(self._authority_seconds)
        store = await self._stack.enter_async_context(
            open_store(self._at, self._name, self._epoch, issued=fleet.issued, fail=self.failures.append)
        )
        opened = OpenStore(store, store.leadership.lead, store.board, store.escrow)
        if self._bus is not None:
            made = collector_bus.bus(self._bus, store, SystemClock(), store.on_issued, self.failures.append)
            opened = replace(opened, bus=await self._stack.enter_async_context(made))
            works = [asyncio.create_task(kept_going(work)) for _, work in opened.bus.works(opened.led)]
            self._stack.push_async_callback(asyncio.gather, *works, return_exceptions=True)
            for work in works:
                self._stack.callback(work.cancel)
        self.centre = Centre(
            self._folder,
            self._epoch,
            sidecars=self._sidecars,
            checkpoint_seconds=self._checkpoint_seconds,
            authority_seconds=self._authority_seconds,
            opened=opened,
            fleet=fleet,
            fleet_budgets=self._fleet_budgets,
        )
        await self._stack.enter_async_context(self.centre)
        self.share = ShareFleet(fleet, self.centre.escrow.holders, store.board, self.centre.clock)
        task = asyncio.create_task(self.share.run())
        following = asyncio.create_task(self.centre.enrolment.follow())
        evictions = FollowEvictions(fleet, store.register, store, self.centre.clock, decode_event)
        forgetting = asyncio.create_task(evictions.run())
        self._stack.push_async_callback(asyncio.gather, task, following, forgetting, return_exceptions=True)
        self._stack.callback(forgetting.cancel)
        self._stack.callback(task.cancel)
        self._stack.callback(following.cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self._stack.aclose()


def shared_key(folder: Path, origin: str) -> Path:
    """The key that all replicas sign with."""
    path = folder / "shared.key"
    open_checkpoint_key(path, origin)
    return path
