"""What is usual for a subject, and what is not. Owns the statistics: each is arithmetic that a human can check.

Rates (money, refusals) are counted by the hour. The usual is an exponentially weighted mean over hours in which the
subject was active (each new hour weighs 1/8), with the mean absolute deviation beside it. An hour is unusual when it
exceeds the largest of: a floor, a multiple of the mean, the mean plus four deviations; and only once enough hours were
seen. An unusual hour enters the mean at that bound, so that an attack does not become usual at once. A route (provider,
operation, model) is news once enough calls were seen. An hour of the day (UTC) is odd when, over enough days, the
subject was never active in it or in the hours beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from leasehold_broker.domain.events import Detail, Event, EventType

HOUR_MS: Final = 3_600_000
DAY_HOURS: Final = 24
WEIGHT: Final = 8
DEVIATIONS: Final = 4
ROUTES_MAX: Final = 64
"""Routes remembered for a subject; the one unused longest is forgotten first."""
HALVE_DAYS: Final = 56
"""After so many active days the counts of hours are halved: what was usual long ago counts less."""
COUNTED_MAX: Final = 2**53
"""Of one event: a sidecar may write a number of thousands of digits; two of these have a sum that nobody can keep."""
NAME_CHARACTERS_MAX: Final = 160


class Unusual(StrEnum):
    """What can be unusual; the names of the rules in the configuration."""

    SPEND_RATE = "spend_rate"
    REFUSALS = "refusals"
    NEW_ROUTE = "new_route"
    ODD_HOUR = "odd_hour"


@dataclass(frozen=True, slots=True)
class AnomalyRules:
    """The thresholds.

    Args:
        spend_multiple, spend_floor_micro_usd: of an hour.
        refusals_multiple, refusals_floor: of an hour.
        hours_min: active hours before rates are judged.
        calls_min: calls before a new route is news.
        days_min: active days before hours of the day are judged.
    """

    spend_multiple: int = 5
    spend_floor_micro_usd: int = 1_000_000
    refusals_multiple: int = 5
    refusals_floor: int = 50
    hours_min: int = 8
    calls_min: int = 50
    days_min: int = 14


@dataclass(frozen=True, slots=True)
class Finding:
    """Something unusual.

    Args:
        what: which rule.
        seen, usual: one sentence each, with the numbers.
        numbers: the same, for machines.
    """

    what: Unusual
    seen: str
    usual: str
    numbers: Mapping[str, Detail]


@dataclass(slots=True)
class Rate:
    """What one hour adds up to, and what is usual; integers throughout."""

    now: int = 0
    mean: int = 0
    deviation: int = 0

    def bound(self, multiple: int, floor: int) -> int:
        """More than this is unusual."""
        return max(floor, multiple * self.mean, self.mean + DEVIATIONS * self.deviation)

    def close(self, hours: int, bound: int | None) -> None:
        """The hour is over: it becomes part of the usual, at most at `bound`."""
        seen = self.now if bound is None else min(self.now, bound)
        if hours == 0:
            self.mean = seen
        else:
            self.deviation += (abs(seen - self.mean) - self.deviation) // WEIGHT
            self.mean += (seen - self.mean) // WEIGHT
        self.now = 0


@dataclass(slots=True)
class Baseline:
    """What is known of one subject. Hours are counted from the epoch, in UTC.

    Args:
        hour: that is being counted.
        hours: active hours before it.
        spend, refusals: rates.
        told: rules that have spoken in this hour.
        calls: ever.
        routes: hour of last use, by route.
        day: newest active day.
        days: active days, that one included.
        of_day: how many days it was active in each hour of the day.
    """

    hour: int = 0
    hours: int = 0
    spend: Rate = field(default_factory=Rate)
    refusals: Rate = field(default_factory=Rate)
    told: set[str] = field(default_factory=set)
    calls: int = 0
    routes: dict[str, int] = field(default_factory=dict)
    day: int = 0
    days: int = 0
    of_day: list[int] = field(default_factory=lambda: [0] * DAY_HOURS)

    def take(self, event: Event, wall_ms: int, rules: AnomalyRules) -> list[Finding]:
        """Count one event of the subject; gives what is unusual about it.

        Args:
            event: of a call, or a refusal; others change nothing.
            wall_ms: when it happened: as the sidecar says, but never later than it was received.
            rules: thresholds.
        """
        hour = wall_ms // HOUR_MS
        match event.type:
            case EventType.CALL_ADMITTED:
                self._turn(hour, rules)
                return [*self._new_route(event, hour, rules), *self._odd_hour(hour, rules)]
            case EventType.CALL_SETTLED:
                self._turn(hour, rules)
                return self._count(Unusual.SPEND_RATE, hour, _charged(event), rules)
            case EventType.CALL_REFUSED | EventType.LEASE_REFUSED | EventType.IDENTITY_REFUSED:
                self._turn(hour, rules)
                return self._count(Unusual.REFUSALS, hour, _number(event.details.get("count"), 1), rules)
            case _:
                return []

    def _turn(self, hour: int, rules: AnomalyRules) -> None:
        if hour <= self.hour:
            return
        if self.hour:
            judged = self.hours >= rules.hours_min
            for rate, multiple, floor in (
                (self.spend, rules.spend_multiple, rules.spend_floor_micro_usd),
                (self.refusals, rules.refusals_multiple, rules.refusals_floor),
            ):
                rate.close(self.hours, rate.bound(multiple, floor) if judged else None)
            self.hours += 1
        self.hour = hour
        self.told.clear()

    def _count(self, what: Unusual, hour: int, more: int, rules: AnomalyRules) -> list[Finding]:
        if hour < self.hour:
            return []  # came late, of an hour that is closed
        money = what is Unusual.SPEND_RATE
        rate = self.spend if money else self.refusals
        multiple = rules.spend_multiple if money else rules.refusals_multiple
        floor = rules.spend_floor_micro_usd if money else rules.refusals_floor
        rate.now += more
        bound = rate.bound(multiple, floor)
        if rate.now <= bound or self.hours < rules.hours_min or what in self.told:
            return []
        self.told.add(what)
        word = "micro-USD" if money else "refusals"
        return [
            Finding(
                what,
                f"{rate.now} {word} in this hour, more than the bound of {bound}",
                f"{rate.mean} {word} an hour, deviation {rate.deviation}, over {self.hours} active hours; the bound is "
                f"the largest of {floor}, {multiple} times the mean, and the mean plus {DEVIATIONS} deviations",
                {
                    "seen": rate.now,
                    "bound": bound,
                    "mean": rate.mean,
                    "deviation": rate.deviation,
                    "sample": self.hours,
                },
            )
        ]

    def _new_route(self, event: Event, hour: int, rules: AnomalyRules) -> list[Finding]:
        parts = [str(event.details.get(name, ""))[:NAME_CHARACTERS_MAX] for name in ("provider", "operation", "model")]
        route = "/".join(parts)
        known = route in self.routes
        usual = sorted(self.routes, key=lambda one: -self.routes[one])[:5]
        calls, self.calls = self.calls, self.calls + 1
        self.routes.pop(route, None)
        self.routes[route] = max(hour, 0)
        while len(self.routes) > ROUTES_MAX:
            del self.routes[min(self.routes, key=lambda one: self.routes[one])]
        if known or calls < rules.calls_min:
            return []
        return [
            Finding(
                Unusual.NEW_ROUTE,
                f"the first call of this subject to {route}",
                f"in {calls} calls: {', '.join(usual)}",
                {"route": route, "sample": calls},
            )
        ]

    def _odd_hour(self, hour: int, rules: AnomalyRules) -> list[Finding]:
        day, of_day = divmod(hour, DAY_HOURS)
        if day < self.day:
            return []
        if day > self.day:
            self.day, self.days = day, self.days + 1
            if self.days % HALVE_DAYS == 0:
                self.of_day = [count // 2 for count in self.of_day]
        if Unusual.ODD_HOUR in self.told or f"active {hour}" in self.told:
            return []
        self.told.add(f"active {hour}")
        beside = [self.of_day[(of_day + step) % DAY_HOURS] for step in (-1, 0, 1)]
        self.of_day[of_day] += 1
        if any(beside) or self.days <= rules.days_min:
            return []
        self.told.add(Unusual.ODD_HOUR)
        active = [str(one) for one, count in enumerate(self.of_day) if count and one != of_day]
        return [
            Finding(
                Unusual.ODD_HOUR,
                f"a call at {of_day:02}:00 UTC",
                f"over {self.days - 1} active days: calls only in the hours {', '.join(active)} (UTC)",
                {"hour": of_day, "sample": self.days - 1},
            )
        ]


def _charged(event: Event) -> int:
    charged = event.details.get("charged")
    return _number(charged.get("cost_micro_usd"), 0) if isinstance(charged, dict) else 0


def _number(found: object, otherwise: int) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        return otherwise
    return min(found, COUNTED_MAX)


def to_row(baseline: Baseline) -> dict[str, Detail]:
    """As plain members, to be remembered."""
    return {
        "hour": baseline.hour,
        "hours": baseline.hours,
        "spend": [baseline.spend.now, baseline.spend.mean, baseline.spend.deviation],
        "refusals": [baseline.refusals.now, baseline.refusals.mean, baseline.refusals.deviation],
        "told": [*sorted(baseline.told)],
        "calls": baseline.calls,
        "routes": {**baseline.routes},
        "day": baseline.day,
        "days": baseline.days,
        "of_day": [*baseline.of_day],
    }


def from_row(row: Mapping[str, Detail]) -> Baseline:
    """What `to_row` made this of.

    Raises:
        ValueError: anything else.
    """
    match dict(row):
        case {
            "hour": int(hour),
            "hours": int(hours),
            "spend": [int(s1), int(s2), int(s3)],
            "refusals": [int(r1), int(r2), int(r3)],
            "told": list(told),
            "calls": int(calls),
            "routes": dict(routes),
            "day": int(day),
            "days": int(days),
            "of_day": list(of_day),
        } if len(of_day) == DAY_HOURS:
            return Baseline(
                hour,
                hours,
                Rate(s1, s2, s3),
                Rate(r1, r2, r3),
                {str(one) for one in told},
                calls,
                {name: _number(last, 0) for name, last in routes.items()},
                day,
                days,
                [_number(one, 0) for one in of_day],
            )
        case _:
            message = f"not a baseline: members {sorted(row)}"
            raise ValueError(message)
