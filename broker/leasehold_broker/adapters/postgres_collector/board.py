"""What replicas tell each other about their sidecars, in a table.

A reader asks for what transactions have written that were not finished when it last asked: transactions end in another
order than they begin in, and none is passed over.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from leasehold_broker.adapters.postgres_collector.connections import translated
from leasehold_broker.domain.budget_changes import BudgetRows
from leasehold_broker.domain.fleet_budget import SharedAsk
from leasehold_broker.domain.key_use import KeyUse
from leasehold_broker.domain.revocation_progress import LiveLeases
from leasehold_broker.ports.fleet_board import SidecarNote
from leasehold_broker.ports.revocation_log import KnownSidecar

_SAID = (
    "connected",
    "heard_age_ms",
    "environment",
    "version",
    "applied_epoch",
    "last_heard_wall_ms",
    "authority_ms",
    "applied_budget_change",
    "live",
    "budgets",
    "key_uses",
    "life",
    "asks",
)
_COLUMNS = ", ".join(("sidecar", "replica", "session", *_SAID))
_ROWS = (
    "unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[], $5::bigint[], $6::text[], $7::text[], $8::bigint[], "
    "$9::bigint[], $10::bigint[], $11::bigint[], $12::bytea[], $13::bytea[], $14::bytea[], $15::text[], "
    f"$16::bytea[]) AS n ({_COLUMNS})"
)
_CLAIM = (
    f"INSERT INTO fleet ({_COLUMNS}) SELECT * FROM {_ROWS} ON CONFLICT (sidecar) DO UPDATE SET "  # noqa: S608 - constants
    + ", ".join(f"{name} = excluded.{name}" for name in ("replica", *_SAID))
    + ", session = fleet.session + 1, changed = pg_current_xact_id() RETURNING sidecar, session"
)
_POST = (
    "UPDATE fleet SET changed = pg_current_xact_id(), "  # noqa: S608 - constants
    + ", ".join(f"{name} = n.{name}" for name in _SAID)
    + f" FROM {_ROWS} WHERE fleet.sidecar = n.sidecar AND fleet.session = n.session AND fleet.replica = n.replica"
)
_BEAT = "UPDATE replicas SET beat = beat + 1 WHERE stream = $1"
_READ = f"SELECT {_COLUMNS} FROM fleet WHERE changed >= $1::text::xid8"  # noqa: S608 - constants
_SINCE = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
_LIVE = msgspec.json.Decoder(LiveLeases)
_KEY_USES = msgspec.json.Decoder(tuple[KeyUse, ...] | None)
_BUDGETS = msgspec.json.Decoder(BudgetRows)
_ASKS = msgspec.json.Decoder(tuple[SharedAsk, ...])


class PostgresFleetBoard:
    """Implements `FleetBoard` for one replica."""

    def __init__(self, pool: Any, replica: str) -> None:
        """Speak as this replica."""
        self._pool = pool
        self._replica = replica
        self._since = "0"

    @property
    def replica(self) -> str:
        """As the port says."""
        return self._replica

    async def claim(self, notes: Sequence[SidecarNote]) -> Mapping[str, int]:
        """As the port says."""
        with translated("write"):
            found = await self._pool.fetch(_CLAIM, *_columns_of(notes))
        return {row["sidecar"]: row["session"] for row in found}

    async def post(self, notes: Sequence[SidecarNote]) -> None:
        """As the port says."""
        with translated("write"):
            async with self._pool.acquire() as connection, connection.transaction():
                if notes:
                    await connection.execute(_POST, *_columns_of(notes))
                await connection.execute(_BEAT, self._replica)

    async def read(self) -> tuple[Sequence[SidecarNote], Mapping[str, int]]:
        """As the port says."""
        with translated("read"):
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                since = await connection.fetchval(_SINCE)
                found = await connection.fetch(_READ, self._since)
                beats = await connection.fetch("SELECT stream, beat FROM replicas")
        self._since = since
        return [_note(row) for row in found], {row["stream"]: row["beat"] for row in beats}


def _columns_of(notes: Sequence[SidecarNote]) -> tuple[list[Any], ...]:
    """By sidecar: two replicas that write the same rows in another order would wait for each other."""
    rows = sorted(
        (
            note.known.name,
            note.replica,
            max(1, note.session),
            note.connected,
            note.heard_age_ms,
            note.known.environment,
            note.known.version,
            note.known.applied_epoch,
            note.known.last_heard_wall_ms,
            note.known.authority_ms,
            note.applied_budget_change,
            msgspec.json.encode(note.live),
            msgspec.json.encode(note.budgets),
            msgspec.json.encode(note.key_uses),
            note.life,
            msgspec.json.encode(note.asks),
        )
        for note in notes
    )
    return tuple(list(column) for column in zip(*rows, strict=True))


def _note(row: Mapping[str, Any]) -> SidecarNote:
    known = KnownSidecar(
        row["sidecar"],
        row["environment"],
        row["version"],
        row["applied_epoch"],
        row["last_heard_wall_ms"],
        row["authority_ms"],
    )
    return SidecarNote(
        known,
        row["replica"],
        row["session"],
        row["connected"],
        row["heard_age_ms"],
        _LIVE.decode(row["live"]),
        _BUDGETS.decode(row["budgets"]),
        row["applied_budget_change"],
        _KEY_USES.decode(row["key_uses"]),
        row["life"],
        _ASKS.decode(row["asks"]),
    )
