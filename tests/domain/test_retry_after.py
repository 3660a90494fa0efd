"""Retry-After in both of its forms."""

import pytest

from leasehold_broker.domain.retry_after import RETRY_SECONDS_MAX, retry_after_seconds

DATE = "Wed, 25 Nov 2026 19:00:00 GMT"


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("0", "", 0),
        (" 17 ", "", 17),
        ("99999999999999999999", "", RETRY_SECONDS_MAX),
        ("Wed, 25 Nov 2026 19:00:30 GMT", DATE, 30),
        ("Wed, 25 Nov 2026 18:00:30 GMT", DATE, 0),
        ("Wed, 25 Nov 2099 18:00:30 GMT", DATE, RETRY_SECONDS_MAX),
        ("Wed, 25 Nov 2026 19:00:30 GMT", "", None),
        ("Wed, 25 Nov 2026 19:00:30 GMT", "yesterday", None),
        ("Wed, 25 Nov 2026 19:00:30", DATE, None),
        ("soon", DATE, None),
        ("-3", DATE, None),
        ("1.5", "", None),
        ("\u0663", "", None),
        ("", "", None),
    ],
)
def test_what_is_asked_for(value, date, seconds):
    """Whole seconds, or a date against the answer's own; bounded; None for what says nothing."""
    assert retry_after_seconds(value, date) == seconds
