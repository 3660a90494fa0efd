"""The budgets of the policy file: caps, windows, rates, raises. Owns their format and its complaints.

A cap is a whole number in its metric's unit; a span is a calendar period, with a time zone, or a rolling length.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from leasehold_broker.adapters.toml_table import TomlTable
from leasehold_broker.domain.amounts import AMOUNT_MAX, METRICS, NO_CAPS, UNLIMITED, Amounts
from leasehold_broker.domain.identity import ENVIRONMENT_LABEL
from leasehold_broker.domain.limits import (
    RATE_SECONDS,
    SOFT_PERCENT_DEFAULT,
    Budget,
    Level,
    Raise,
    WindowLimit,
)
from leasehold_broker.domain.scope import PROVIDER_RULE, is_provider
from leasehold_broker.domain.windows import ROLLING_SECONDS_MAX, ROLLING_SECONDS_MIN, Period, Rolling

BUDGETS_MAX = 500
RAISES_MAX = 32
_RATES = {"requests_per_minute": 3, "input_tokens_per_minute": 1, "output_tokens_per_minute": 2}
_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ON = 'must be "everything", or "key:", "provider:" or "environment:" and a name, or "label:<name>=<value>"'
_PER = 'must be "subject", or "label:<name>" for one budget for each value of that label'
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_caps(table: TomlTable) -> Amounts:
    """The caps of a table that has nothing else."""
    caps = _caps(table)
    table.done()
    return caps


def read_soft_percent(table: TomlTable) -> int:
    """The percentage of each cap at which a warning is recorded."""
    return table.integer("soft_percent", 0, 100, default=SOFT_PERCENT_DEFAULT)


def read_windows(table: TomlTable) -> tuple[WindowLimit, ...]:
    """The windows and the rate of a grant."""
    limits: list[WindowLimit] = []
    for window in table.tables("windows"):
        level, label = _per(window)
        limit = _limit(window, level, label)
        window.done()
        if any(_same(limit, other) for other in limits):
            window.complain("", f"{limit.name!r} has two windows; put all its caps into one")
        limits.append(limit)
    rate = table.table("rate")
    if rate is not None:
        limit = WindowLimit(Level.SUBJECT, Rolling(RATE_SECONDS), _rate(rate))
        if any(_same(limit, other) for other in limits):
            rate.complain("", f"and a window of {RATE_SECONDS} rolling seconds; put all its caps into one")
        limits.append(limit)
    return tuple(limits)


def read_budgets(root: TomlTable) -> tuple[Budget, ...]:
    """The budgets beside the grants."""
    tables = root.tables("budgets")
    if len(tables) > BUDGETS_MAX:
        root.complain("budgets", f"has {len(tables)} entries; at most {BUDGETS_MAX} are read")
        tables = []
    budgets: list[Budget] = []
    for table in tables:
        level, label, value = _on(table)
        budget = Budget(value, _limit(table, level, label))
        table.done()
        if any(other.on == budget.on and _same(other.limit, budget.limit) for other in budgets):
            table.complain("", f"{budget.on!r} has two budgets over the same span; put all its caps into one")
        budgets.append(budget)
    return tuple(budgets)


def _same(one: WindowLimit, other: WindowLimit) -> bool:
    return one.name == other.name


def _per(table: TomlTable) -> tuple[Level, str]:
    text = table.text("per", default="subject")
    kind, colon, label = text.partition(":")
    if text in {"subject", ""}:
        return Level.SUBJECT, ""
    if kind != "label" or not colon or not _LABEL.fullmatch(label):
        table.complain("per", f"{_PER}, was {text!r}")
    return Level.LABEL, label


def _on(table: TomlTable) -> tuple[Level, str, str]:
    text = table.text("on")
    kind, _, name = text.partition(":")
    label, equals, value = name.partition("=")
    match kind:
        case "everything" if not name:
            return Level.EVERYTHING, "", ""
        case "key" | "environment" if name:
            return Level(kind), "", name
        case "provider" if is_provider(name):
            return Level.PROVIDER, "", name
        case "provider":
            table.complain("on", f"names no provider: {PROVIDER_RULE}; was {text!r}")
        case "label" if label == ENVIRONMENT_LABEL:
            table.complain("on", f'is the environment; write "environment:{value}"')
        case "label" if equals and value and _LABEL.fullmatch(label):
            return Level.LABEL, label, value
        case _ if text:
            table.complain("on", f"{_ON}, was {text!r}")
    return Level.EVERYTHING, "", ""


def _limit(table: TomlTable, level: Level, label: str) -> WindowLimit:
    span, zone = _span(table)
    caps = _caps(table)
    if span is not Period.TOTAL and caps.concurrency < UNLIMITED:
        table.complain(
            "concurrency", 'is how many calls are open at once, not over a time; state it with period = "total"'
        )
    return WindowLimit(
        level=level,
        span=span,
        caps=caps,
        zone=zone,
        label=label,
        soft_percent=read_soft_percent(table),
        hard=table.text("limit", default="hard", allowed=["hard", "soft"]) == "hard",
        raises=tuple(_raises(table, caps)),
    )


def _span(table: TomlTable) -> tuple[Period | Rolling, tzinfo]:
    if table.has("rolling_seconds"):
        seconds = table.integer("rolling_seconds", ROLLING_SECONDS_MIN, ROLLING_SECONDS_MAX)
        for name in ("period", "time_zone"):
            if table.has(name):
                table.take(name)
                table.complain(name, "does not go with rolling_seconds; leave one of the two out")
        return Rolling(seconds), UTC
    if not table.has("period"):
        table.take("period")
        table.complain("", "has no span; add a period or rolling_seconds")
        return Period.TOTAL, UTC
    period = table.text("period", allowed=[str(period) for period in Period])
    name = table.text("time_zone", default="UTC")
    if period == Period.TOTAL and table.has("time_zone"):
        table.complain("time_zone", 'does not go with period = "total", which never starts anew; leave it out')
    return Period(period or Period.TOTAL), _zone(table, name)


def _zone(table: TomlTable, name: str) -> tzinfo:
    if name in {"UTC", "", "Etc/UTC"}:
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        # An unknown name, one that is no name, or a folder of the table; its text is quoted by the complaint.
        table.complain("time_zone", f'{name!r} is not in the table of time zones; write one like "Europe/Berlin"')
        return UTC


def _caps(table: TomlTable) -> Amounts:
    caps = Amounts(*(table.integer(metric, 1, AMOUNT_MAX, default=UNLIMITED) for metric in METRICS))
    if caps == NO_CAPS:
        table.complain("", f"caps nothing; name at least one of {', '.join(METRICS)}")
    return caps


def _raises(table: TomlTable, caps: Amounts) -> Iterator[Raise]:
    tables = table.tables("raise")
    if len(tables) > RAISES_MAX:
        table.complain("raise", f"has {len(tables)} entries; at most {RAISES_MAX} are read: remove those that are over")
        return
    for one in tables:
        begin, end = _moment(one, "from"), _moment(one, "until")
        raised = read_caps(one)
        if end <= begin:
            one.complain("until", "must be later than from")
        for metric, cap, more in zip(METRICS, caps, raised, strict=True):
            if more < UNLIMITED and not cap < more:
                was = "which has no cap" if cap == UNLIMITED else f"whose cap is {cap}"
                one.complain(metric, f"{more} does not raise it, {was}")
        yield Raise(begin, end, raised)


def _moment(table: TomlTable, name: str) -> int:
    value = table.take(name)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return (value - _EPOCH) // timedelta(milliseconds=1)
    table.complain(name, f"must be a time with its offset, like {name} = 2026-12-01T09:00:00Z (no quotes)")
    return 0


def _rate(table: TomlTable) -> Amounts:
    amounts = list(NO_CAPS)
    for name, position in _RATES.items():
        amounts[position] = table.integer(name, 1, AMOUNT_MAX, default=UNLIMITED)
    if Amounts(*amounts) == NO_CAPS:
        table.complain("", f"limits nothing; name at least one of {', '.join(_RATES)}")
    table.done()
    return Amounts(*amounts)
