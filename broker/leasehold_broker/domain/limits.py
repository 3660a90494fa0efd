"""Limits over time: what a budget counts, over which span, its caps, their raises and the threshold of its warning.

Owns these rows of the policy; refuses to count anything itself.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from enum import StrEnum

from leasehold_broker.domain.amounts import NO_CAPS, UNLIMITED, Amounts
from leasehold_broker.domain.windows import Period, Rolling

SOFT_PERCENT_DEFAULT = 80
RATE_SECONDS = 60
"""A limit over at most so long is a rate: who meets it is told to slow down, not that his budget is exhausted."""


class Level(StrEnum):
    """What a budget is counted for."""

    SUBJECT = "subject"
    LABEL = "label"
    KEY = "key"
    PROVIDER = "provider"
    ENVIRONMENT = "environment"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Raise:
    """Larger caps for a while; UNLIMITED where it does not change the cap."""

    from_wall_ms: int
    until_wall_ms: int
    caps: Amounts


@dataclass(frozen=True, slots=True)
class WindowLimit:
    """Caps over one span at one level, e.g. 5 USD a day per subject.

    Args:
        level: what is counted.
        span: a calendar period, or a rolling window.
        caps: UNLIMITED where there is none.
        zone: whose midnights calendar windows begin at.
        label: name of the label, at level LABEL.
        soft_percent: of each cap, at which a warning is recorded; 0 for none.
        hard: False: the caps are only warned of, never refused at.
        raises: larger caps for a while.
    """

    level: Level
    span: Period | Rolling
    caps: Amounts
    zone: tzinfo = UTC
    label: str = ""
    soft_percent: int = SOFT_PERCENT_DEFAULT
    hard: bool = True
    raises: tuple[Raise, ...] = ()

    @property
    def span_name(self) -> str:
        """As in names of budgets: "day", "month@Europe/Berlin", "rolling-86400s"."""
        return str(self.span) if self.zone is UTC else f"{self.span}@{self.zone}"

    @property
    def name(self) -> str:
        """As shown to callers: "subject/day", "label:team/month@Europe/Berlin"."""
        level = f"{self.level}:{self.label}" if self.label else str(self.level)
        return f"{level}/{self.span_name}"

    @property
    def is_rate(self) -> bool:
        """True for limits over a minute or less."""
        if isinstance(self.span, Rolling):
            return self.span.seconds <= RATE_SECONDS
        return self.span is Period.MINUTE

    def caps_at(self, wall_ms: int) -> Amounts:
        """The caps in force at this moment, raises included."""
        caps = self.caps
        for one in self.raises:
            if one.from_wall_ms <= wall_ms < one.until_wall_ms:
                caps = Amounts(
                    *(max(cap, more) if more < UNLIMITED else cap for cap, more in zip(caps, one.caps, strict=True))
                )
        return caps

    def changes_after(self, wall_ms: int) -> list[int]:
        """Later moments at which a raise begins or ends, the next one first."""
        edges = {edge for one in self.raises for edge in (one.from_wall_ms, one.until_wall_ms)}
        return sorted(edge for edge in edges if edge > wall_ms)


@functools.lru_cache(maxsize=1024)
def soft_caps(caps: Amounts, percent: int) -> Amounts:
    """What may be settled without a warning: less than `percent` of each cap; UNLIMITED where there is none.

    Calls that are open at once are not added up over time: there is nothing to warn of.
    """
    if not percent:
        return NO_CAPS
    found = (max(0, -(-cap * percent // 100) - 1) if cap < UNLIMITED else UNLIMITED for cap in caps)
    return Amounts(*found)._replace(concurrency=UNLIMITED)


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on all that is spent on one thing through this sidecar, whoever spends it.

    Args:
        value: the key's, provider's or environment's name, or the label's value; "" for everything.
        limit: its level, and at level LABEL the label, say what the value is of.
    """

    value: str
    limit: WindowLimit

    @property
    def on(self) -> str:
        """As in the policy: "key:anthropic-prod", "label:team=search", "everything"."""
        if self.limit.level is Level.EVERYTHING:
            return str(self.limit.level)
        if self.limit.level is Level.LABEL:
            return f"{self.limit.level}:{self.limit.label}={self.value}"
        return f"{self.limit.level}:{self.value}"

    def applies_to(self, provider: str, key: str, environment: str, labels: Mapping[str, str]) -> bool:
        """True when a call with this key, of a subject with these verified labels, counts."""
        match self.limit.level:
            case Level.EVERYTHING:
                return True
            case Level.KEY:
                return key == self.value
            case Level.PROVIDER:
                return provider == self.value
            case Level.ENVIRONMENT:
                return environment == self.value
            case Level.LABEL:
                return labels.get(self.limit.label) == self.value
            case Level.SUBJECT:
                return False
