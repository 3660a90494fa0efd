"""[[fleet_budgets]] of the collector's file: caps over all sidecars. Owns their shape and what is refused."""

from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import ConfigError
from leasehold_broker.domain.amounts import AMOUNT_MAX, NO_CAPS, UNLIMITED, Amounts
from leasehold_broker.domain.fleet_budget import FLEET_BUDGETS_MAX, FLEET_ROLLING_SECONDS_MIN, FleetBudget
from leasehold_broker.domain.limits import Budget, Level, WindowLimit
from leasehold_broker.domain.scope import is_provider
from leasehold_broker.domain.windows import ROLLING_SECONDS_MAX, Period, Rolling

_NAMED = frozenset({Level.KEY, Level.PROVIDER, Level.ENVIRONMENT})
_ON = 'must be "everything", or "key:", "provider:" or "environment:" and a name, or "label:<name>=<value>"'


class FleetBudgetPart(Part, frozen=True):
    """One of them, as written."""

    on: str
    period: Period | None = None
    rolling_seconds: int = 0
    time_zone: str = "UTC"
    cost_micro_usd: int = UNLIMITED
    input_tokens: int = UNLIMITED
    output_tokens: int = UNLIMITED
    requests: int = UNLIMITED
    sidecar_percent_max: int = 100


def fleet_budgets_at(parts: tuple[FleetBudgetPart, ...], path: Path) -> tuple[FleetBudget, ...]:
    """The budgets, checked.

    Raises:
        ConfigError: says which one is wrong and what to change.
    """
    if len(parts) > FLEET_BUDGETS_MAX:
        message = f"{path}: {len(parts)} [[fleet_budgets]]; at most {FLEET_BUDGETS_MAX} are read"
        raise ConfigError(message)
    found: list[FleetBudget] = []
    for part in parts:
        try:
            budget = _budget(part)
        except ValueError as fault:
            message = f"{path}: [[fleet_budgets]] on = {part.on!r}: {fault}"
            raise ConfigError(message) from None
        if any(other.name == budget.name for other in found):
            message = f"{path}: two [[fleet_budgets]] are {budget.name!r}; put all their caps into one"
            raise ConfigError(message)
        found.append(budget)
    return tuple(found)


def _budget(part: FleetBudgetPart) -> FleetBudget:
    level, label, value = _on(part.on)
    caps = Amounts(part.cost_micro_usd, part.input_tokens, part.output_tokens, part.requests, UNLIMITED)
    if caps == NO_CAPS:
        message = "caps nothing; name at least one of cost_micro_usd, input_tokens, output_tokens, requests"
        raise ValueError(message)
    if not all(0 < cap <= AMOUNT_MAX or cap == UNLIMITED for cap in caps):
        message = f"a cap must be 1 to {AMOUNT_MAX} in its metric's unit"
        raise ValueError(message)
    if not 1 <= part.sidecar_percent_max <= 100:
        message = "sidecar_percent_max must be 1 to 100"
        raise ValueError(message)
    budget = Budget(value, WindowLimit(level, _span(part), caps, _zone(part), label, soft_percent=0))
    return FleetBudget(budget, part.sidecar_percent_max)


def _span(part: FleetBudgetPart) -> Period | Rolling:
    if (part.period is None) == (not part.rolling_seconds):
        message = "needs one of period and rolling_seconds"
        raise ValueError(message)
    if part.period is not None:
        return part.period
    if not FLEET_ROLLING_SECONDS_MIN <= part.rolling_seconds <= ROLLING_SECONDS_MAX:
        message = (
            f"rolling_seconds must be {FLEET_ROLLING_SECONDS_MIN} to {ROLLING_SECONDS_MAX}: each sixtieth of it has "
            "slices of its own"
        )
        raise ValueError(message)
    return Rolling(part.rolling_seconds)


def _on(text: str) -> tuple[Level, str, str]:
    if text == Level.EVERYTHING:
        return Level.EVERYTHING, "", ""
    kind, _, name = text.partition(":")
    if kind == Level.LABEL:
        label, equals, value = name.partition("=")
        if label and equals and value and text.isprintable():
            return Level.LABEL, label, value
    elif kind in _NAMED and name and text.isprintable() and (kind != Level.PROVIDER or is_provider(name)):
        return Level(kind), "", name
    raise ValueError(_ON)


def _zone(part: FleetBudgetPart) -> tzinfo:
    if part.rolling_seconds and part.time_zone != "UTC":
        message = "time_zone does not go with rolling_seconds; leave one of the two out"
        raise ValueError(message)
    if part.time_zone in {"UTC", "Etc/UTC"}:
        return UTC
    if part.period is Period.TOTAL:
        message = 'time_zone does not go with period = "total", which never starts anew; leave it out'
        raise ValueError(message)
    try:
        return ZoneInfo(part.time_zone)
    except (OSError, ValueError, KeyError):
        message = f'time_zone {part.time_zone!r} is not in the table of time zones; write one like "Europe/Berlin"'
        raise ValueError(message) from None
