"""Money and lengths of time, parsed exactly."""

from datetime import timedelta
from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold import InvalidRequest
from leasehold._amounts import micro_usd, ttl_seconds, usd


@pytest.mark.parametrize(
    ("micro", "value"),
    [
        (2_500_000, "2.50"),
        (2_000_000, "2"),
        (1, "0.000001"),
        (300_000, "0.3"),
        (2_500_000, Decimal("2.5")),
        (1_000_000_000, Decimal("1E+3")),
        (2_500_000, Decimal("2.5000000000")),
        (42, 42),
    ],
)
def test_money_is_read_exactly(micro, value):
    """Text and Decimal are USD, int is micro-USD, and none of them is rounded."""
    assert micro == micro_usd(value)


@pytest.mark.parametrize(
    "value",
    [2.5, True, None, "", " 2", "2.", ".5", "2.5000001", "1e3", "-1", "0", "0.000000", "٢", "2,50", "1" * 11]  # noqa: RUF005 - by kind
    + [Decimal("0.0000001"), Decimal("NaN"), Decimal("Infinity"), Decimal(-1), Decimal("1e99"), 0, -1, 10**15 + 1],
)
def test_money_that_is_not_exact_is_refused(value):
    """A float, too many decimals, nothing, or an absurd amount is an error, never a guess."""
    with pytest.raises(InvalidRequest, match="budget"):
        micro_usd(value)


def test_money_does_not_depend_on_the_decimal_context():
    """A caller's Decimal precision cannot change an amount."""
    amount = Decimal("123456789.123456")
    with localcontext() as context:
        context.prec = 3

        assert micro_usd(amount) == 123_456_789_123_456


@given(st.integers(1, 10**15))
def test_money_survives_printing_and_parsing(micro):
    """What is printed reads back as the same amount."""
    assert micro == micro_usd(usd(micro))


@pytest.mark.parametrize(
    ("seconds", "value"),
    [(1800, "30m"), (5400, "1h30m"), (90, "90s"), (172_800, "2d"), (60, 60), (61, timedelta(minutes=1, seconds=1))],
)
def test_lengths_are_read(seconds, value):
    """Text with units, whole seconds and timedeltas are all lengths."""
    assert seconds == ttl_seconds(value)


@pytest.mark.parametrize(
    "value",
    ["", "30", "30 m", "m", "30m1h", "1.5h", 0, -1, 1.5, True, timedelta(milliseconds=1500), timedelta(0), "0s"],
)
def test_lengths_that_are_unclear_are_refused(value):
    """A length without unit, with a fraction, or of nothing is an error."""
    with pytest.raises(InvalidRequest, match="ttl"):
        ttl_seconds(value)
