"""Budget vectors as event details: only what is not zero, and caps only where there is one."""

from collections.abc import Iterable

from leasehold_broker.domain.amounts import ALL_METRICS, METRICS, UNLIMITED, Amounts
from leasehold_broker.domain.events import Detail
from leasehold_broker.domain.ledger import Leg

_NAMES = tuple(metric.value for metric in METRICS)
_EVERY_METRIC = "1" * len(METRICS)


def amount_details(amounts: Amounts) -> dict[str, Detail]:
    """Non-zero amounts by metric name."""
    return {name: amount for name, amount in zip(_NAMES, amounts, strict=True) if amount}


def cap_details(caps: Amounts) -> dict[str, Detail]:
    """Finite caps by metric name."""
    return {name: cap for name, cap in zip(_NAMES, caps, strict=True) if cap < UNLIMITED}


def leg_details(legs: Iterable[Leg]) -> list[Detail]:
    """Each budget that a hold draws on, with its mask: one digit for each metric, "1" where it draws."""
    return [
        [leg.account, _EVERY_METRIC if leg.mask is ALL_METRICS else "".join("1" if on else "0" for on in leg.mask)]
        for leg in legs
    ]
