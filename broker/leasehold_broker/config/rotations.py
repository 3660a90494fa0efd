"""The [[rotations]] tables: which keys are rotated, where they are made, when, and how long each part may take.

Owns their TOML shape and what is refused; deploy/config/rotations.toml explains each line.
"""

import re
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from zoneinfo import ZoneInfo

from leasehold_broker.config.keys import KeysAt, VaultStore
from leasehold_broker.config.minters import Minter, VaultRootMinter, engine_of, minter_at, wrong_minter
from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import ConfigError
from leasehold_broker.domain.rotation import RotationLimits
from leasehold_broker.domain.rotation_schedule import DAYS, Blackout, RotationSchedule

_HOUR = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
JITTER_SECONDS_MAX = 24 * 3600
EVERY_DAYS_MAX = 3660.0
DAY = 86400.0


class Closed(Part, frozen=True):
    """When no rotation is begun by schedule."""

    days: tuple[str, ...] = DAYS
    start: str = "00:00"
    end: str = "00:00"


class Limits(Part, frozen=True):
    """How long each part may take."""

    mint_seconds: float = 3600.0
    by_hand_days: float = 7.0
    probe_seconds: float = 300.0
    drain_seconds_min: float = 30.0
    drain_seconds: float = 3600.0
    incident_drain_seconds: float = 60.0
    verify_seconds: float = 900.0


class RotationTable(Part, frozen=True):
    """One table."""

    key: str
    at: Minter
    every_days: float = 0.0
    cron: str = ""
    timezone: str = "UTC"
    jitter_seconds: int = 0
    closed: tuple[Closed, ...] = ()
    probe: bool = True
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class RotationAt:
    """One key that is rotated, checked."""

    key: str
    at: Minter
    schedule: RotationSchedule
    limits: RotationLimits


def rotations_at(tables: tuple[RotationTable, ...], keys: KeysAt | None, path: Path) -> tuple[RotationAt, ...]:
    """The settings of the tables.

    Args:
        tables: as read.
        keys: of the same file.
        path: of it.

    Raises:
        ConfigError: says what is wrong and what to change.
    """
    wrong = [f"[[rotations]] names key {name!r} twice" for name in _repeated([each.key for each in tables])]
    for table in tables:
        wrong += [f"[[rotations]] {table.key!r}: {what}" for what in _wrong(table, keys)]
    if wrong:
        message = f"{path}: " + "; ".join(wrong)
        raise ConfigError(message)
    return tuple(
        RotationAt(each.key, minter_at(each.at, path.parent), _schedule(each), _limits(each)) for each in tables
    )


def _wrong(table: RotationTable, keys: KeysAt | None) -> list[str]:
    wrong = [f"at: {what}" for what in wrong_minter(table.at)]
    place = _wrong_root(table, keys) if isinstance(table.at, VaultRootMinter) else _wrong_place(table.key, keys)
    wrong += place + _wrong_schedule(table)
    if any(getattr(table.limits, field) < 0 for field in Limits.__struct_fields__):
        wrong.append("limits must not be negative")
    return wrong


def _wrong_root(table: RotationTable, keys: KeysAt | None) -> list[str]:
    path = next(
        (key.path for each in (keys.engines if keys else ()) for key in each.keys if key.name == table.key), None
    )
    if path is None:
        return ["vault-root rotates what a key of [[keys.engines]] stands on, and there is no such key"]
    assert isinstance(table.at, VaultRootMinter)  # noqa: S101 - asked by the caller
    mount = engine_of(table.at)
    if mount and not path.startswith(f"{mount}/"):
        return [f"at: path is of the engine at {mount}, the key's ({path}) is not: it could not be tried"]
    return []


def _wrong_place(key: str, keys: KeysAt | None) -> list[str]:
    if keys is None:
        return ["there is no [keys]: say where the key is kept"]
    store = next((store for store in keys.stores for each in store.keys if each.name == key), None)
    if key in {each.name for each in keys.federated}:
        return ["a federated key has no secret that could be rotated"]
    if key in {each.name for engines in keys.engines for each in engines.keys}:
        return ["an engine makes it anew for each lease; what the engine stands on is rotated by minter vault-root"]
    if store is None and keys.path is None:
        return ["no store of [keys] has it"]
    if not isinstance(store, VaultStore | None) and any(each.field for each in store.keys if each.name == key):
        return [
            "its secret is a JSON object, of which the key is a field: a rotation writes only secrets that are the key"
        ]
    return []


def _wrong_schedule(table: RotationTable) -> list[str]:
    wrong = []
    if table.every_days and table.cron:
        wrong.append("give every_days or cron, not both")
    if not 0 <= table.every_days <= EVERY_DAYS_MAX:
        wrong.append(f"every_days must be 0 to {EVERY_DAYS_MAX:g}, was {table.every_days:g}")
    if not 0 <= table.jitter_seconds <= JITTER_SECONDS_MAX:
        wrong.append(f"jitter_seconds must be 0 to {JITTER_SECONDS_MAX}, was {table.jitter_seconds}")
    try:
        ZoneInfo(table.timezone)
    except (ValueError, OSError, KeyError):
        wrong.append(f"timezone {table.timezone!r} is not known; give a name like Europe/Berlin")
    for closed in table.closed:
        if not closed.days or not set(closed.days) <= set(DAYS):
            wrong.append(f"closed: days are of {', '.join(DAYS)}")
        wrong += [
            f"closed: {at!r} is no time like 09:30" for at in (closed.start, closed.end) if not _HOUR.fullmatch(at)
        ]
    return wrong


def _schedule(table: RotationTable) -> RotationSchedule:
    closed = tuple(
        Blackout(each.days, time.fromisoformat(each.start), time.fromisoformat(each.end)) for each in table.closed
    )
    return RotationSchedule(table.every_days, table.cron, ZoneInfo(table.timezone), table.jitter_seconds, closed)


def _limits(table: RotationTable) -> RotationLimits:
    limits = table.limits
    return RotationLimits(
        mint=limits.mint_seconds,
        by_hand=limits.by_hand_days * DAY,
        probe=limits.probe_seconds,
        drain_min=limits.drain_seconds_min,
        drain=limits.drain_seconds,
        drain_incident=limits.incident_drain_seconds,
        verify=limits.verify_seconds,
        probed=table.probe,
    )


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
