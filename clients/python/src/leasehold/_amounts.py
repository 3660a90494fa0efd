"""Money and time as people write them. Owns exact parsing and printing; refuses floats, rounding and guesses.

Money is integer micro-USD (1 USD = 1,000,000); a text or a Decimal is USD. Durations are whole seconds.
"""

import re
from datetime import timedelta
from decimal import Decimal

from leasehold.errors import InvalidRequest

MICRO_PER_USD = 1_000_000
MICRO_USD_MAX = 10**15
"""Largest cap that the broker takes: a billion dollars. Beyond is a mistake."""
COUNT_MAX = 10**15
UNCAPPED = 2**62
"""At and above this a cap means "none"."""

_USD = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,6}))?", re.ASCII)
_TTL = re.compile(r"(?:([0-9]{1,4})d)?(?:([0-9]{1,5})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,8})s)?", re.ASCII)

Money = str | Decimal | int
Ttl = str | timedelta | int


def micro_usd(value: Money, field: str = "budget") -> int:
    """Money as integer micro-USD, exactly.

    Args:
        value: USD as text ("2.50") or Decimal, with at most 6 decimals; or micro-USD as int (2_500_000).
        field: how the error names it.

    Raises:
        InvalidRequest: a float, not a number, more than 6 decimals, not positive, or above a billion dollars.
    """
    if isinstance(value, bool) or not isinstance(value, (str, Decimal, int)):
        kind = type(value).__name__
        raise InvalidRequest.of_field(
            field, f'is a {kind}; give USD as text ("2.50") or Decimal, or micro-USD as int: a float is not exact'
        )
    if isinstance(value, int):
        amount = value
    elif isinstance(value, Decimal):
        amount = _from_decimal(value, field)
    else:
        amount = _from_text(value, field)
    if not 0 < amount <= MICRO_USD_MAX:
        raise InvalidRequest.of_field(field, f"is {value}; give more than 0 and at most 1,000,000,000 USD")
    return amount


def _from_text(text: str, field: str) -> int:
    match = _USD.fullmatch(text)
    if match is None:
        raise InvalidRequest.of_field(
            field, f'is {text[:40]!r}; give USD like "2.50", digits and a point, at most 6 decimals'
        )
    return int(match[1]) * MICRO_PER_USD + int((match[2] or "").ljust(6, "0"))


def _from_decimal(value: Decimal, field: str) -> int:
    # Integers all the way: Decimal arithmetic would round to the precision of the caller's context.
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or abs(exponent) > 40 or len(digits) > 40:
        raise InvalidRequest.of_field(field, f"is {str(value)[:40]}; give an ordinary amount of USD")
    number = int("".join(map(str, digits)))
    places = exponent + 6
    scaled, rest = divmod(number * int(10 ** max(places, 0)), int(10 ** max(-places, 0)))
    if rest:
        raise InvalidRequest.of_field(field, f"is {value}; at most 6 decimals: money is counted in whole micro-USD")
    return -scaled if sign else scaled


def usd(amount_micro_usd: int) -> str:
    """Micro-USD as USD text without loss, at least two decimals: 12345 -> "0.012345", 2_500_000 -> "2.50"."""
    sign = "-" if amount_micro_usd < 0 else ""
    whole, micro = divmod(abs(amount_micro_usd), MICRO_PER_USD)
    decimals = f"{micro:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


def ttl_seconds(value: Ttl) -> int:
    """A lease's length in whole seconds.

    Args:
        value: text with units ("30m", "1h30m", "90s", "2d"), a timedelta of whole seconds, or seconds as int.

    Raises:
        InvalidRequest: none of these, or less than one second.
    """
    if isinstance(value, bool) or not isinstance(value, (str, timedelta, int)):
        raise InvalidRequest.of_field("ttl", f'is a {type(value).__name__}; give "30m", a timedelta or whole seconds')
    if isinstance(value, str):
        match = _TTL.fullmatch(value)
        if match is None or not value:
            raise InvalidRequest.of_field("ttl", f'is {value[:40]!r}; give a length with units, like "30m" or "1h30m"')
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        total = days * 86_400 + hours * 3_600 + minutes * 60 + seconds
    elif isinstance(value, timedelta):
        total, rest = divmod(value, timedelta(seconds=1))
        if rest:
            raise InvalidRequest.of_field("ttl", f"is {value}; give whole seconds")
    else:
        total = value
    if total < 1:
        raise InvalidRequest.of_field("ttl", f"is {value}; give at least one second")
    return total


def count(value: int, field: str) -> int:
    """A positive whole number within what the broker takes.

    Raises:
        InvalidRequest: anything else.
    """
    if type(value) is not int or not 0 < value <= COUNT_MAX:
        raise InvalidRequest.of_field(field, f"is {value!r}; give a whole number above 0")
    return value
