"""The collector's `[anomalies]`: what is unusual, and what is done about it. Owns shape, defaults, what is refused."""

from dataclasses import dataclass
from pathlib import Path

from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import ConfigError
from leasehold_broker.domain.baselines import AnomalyRules
from leasehold_broker.domain.responses import Response, ResponseRules

BLOCK_SECONDS_MAX = 30 * 24 * 3600
PER_HOUR_MAX = 1000


class _Respond(Part, frozen=True):
    spend_rate: Response = Response.TELL
    refusals: Response = Response.TELL
    new_route: Response = Response.TELL
    odd_hour: Response = Response.TELL
    honeytoken: Response = Response.BLOCK_SUBJECT
    block_seconds: int = 0
    revocations_per_hour_max: int = 5


class Anomalies(Part, frozen=True):
    """The `[anomalies]` table; thresholds as in `domain.baselines.AnomalyRules`."""

    enabled: bool = False
    spend_multiple: int = 5
    spend_floor_micro_usd: int = 1_000_000
    refusals_multiple: int = 5
    refusals_floor: int = 50
    hours_min: int = 8
    calls_min: int = 50
    days_min: int = 14
    respond: _Respond = _Respond()


@dataclass(frozen=True, slots=True)
class AnomaliesAt:
    """Thresholds (None: no statistics are kept) and responses, checked."""

    rules: AnomalyRules | None
    responses: ResponseRules


def anomalies_at(part: Anomalies, path: Path) -> AnomaliesAt:
    """Checked.

    Raises:
        ConfigError: lists everything that is wrong.
    """
    respond = part.respond
    numbers = {
        name: getattr(part, name)
        for name in (
            "spend_multiple",
            "spend_floor_micro_usd",
            "refusals_multiple",
            "refusals_floor",
            "hours_min",
            "calls_min",
            "days_min",
        )
    }
    wrong = [f"{name} must be at least 1, was {number}" for name, number in numbers.items() if number < 1]
    if not 0 <= respond.block_seconds <= BLOCK_SECONDS_MAX:
        wrong.append(f"respond.block_seconds must be 0 (until lifted) to {BLOCK_SECONDS_MAX}")
    if not 0 <= respond.revocations_per_hour_max <= PER_HOUR_MAX:
        wrong.append(f"respond.revocations_per_hour_max must be 0 to {PER_HOUR_MAX}")
    if wrong:
        message = f"{path}: [anomalies] " + "; ".join(wrong)
        raise ConfigError(message)
    kinds = ("spend_rate", "refusals", "new_route", "odd_hour", "honeytoken")
    responses = ResponseRules(
        {kind: getattr(respond, kind) for kind in kinds}, respond.block_seconds, respond.revocations_per_hour_max
    )
    return AnomaliesAt(AnomalyRules(**numbers) if part.enabled else None, responses)
