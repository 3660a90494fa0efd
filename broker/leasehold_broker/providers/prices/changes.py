"""What changed between two price tables. Owns the comparison; words and money are the command's."""

from collections.abc import Iterator
from dataclasses import dataclass

from leasehold_broker.providers.prices.table import ModelRow, PeriodRow, ScheduleRow, Table


@dataclass(frozen=True, slots=True)
class Change:
    """One number that is different.

    Args:
        provider, model: the row.
        what: the unit, with tier, threshold and day where there are any; "model" when the whole row came or went.
        before, after: pico-USD per unit (tokens for limits); None where there is none.
    """

    provider: str
    model: str
    what: str
    before: int | None
    after: int | None


def changes(before: Table, after: Table) -> Iterator[Change]:
    """Every difference, by provider and model."""
    for provider in sorted({*before.providers, *after.providers}):
        old = {row.name: row for row in before.providers.get(provider, ())}
        new = {row.name: row for row in after.providers.get(provider, ())}
        for name in sorted({*old, *new}):
            if name not in new:
                yield Change(provider, name, "model", 1, None)
            elif name not in old:
                yield Change(provider, name, "model", None, 1)
            else:
                yield from _row_changes(provider, old[name], new[name])


def _row_changes(provider: str, old: ModelRow, new: ModelRow) -> Iterator[Change]:
    before, after = dict(_numbers(old)), dict(_numbers(new))
    for what in sorted({*before, *after}):
        if before.get(what) != after.get(what):
            yield Change(provider, new.name, what, before.get(what), after.get(what))


def _numbers(row: ModelRow) -> Iterator[tuple[str, int]]:
    yield from ((f"alias {name}", 1) for name in row.aliases)
    yield from (("context", row.context), ("largest answer", row.output))
    yield from ((f"region {name}", factor) for name, factor in row.regions.items())
    for period in row.periods:
        day = f" from {period.from_ms}" if period.from_ms else ""
        yield from ((name + day, rate) for name, rate in _rates(period))


def _rates(period: PeriodRow) -> Iterator[tuple[str, int]]:
    standard = ScheduleRow(period.rates, period.tiers)
    for variant, schedule in (("", standard), *period.variants.items()):
        tier = f" ({variant})" if variant else ""
        yield from ((name + tier, rate) for name, rate in schedule.rates.items())
        for each in schedule.tiers:
            yield from ((f"{name}{tier} above {each.above}", rate) for name, rate in each.rates.items())
