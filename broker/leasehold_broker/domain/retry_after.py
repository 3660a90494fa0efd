"""How long an answer asks to wait: Retry-After (RFC 9110, section 10.2.3), in both of its forms."""

from email.utils import parsedate_to_datetime

RETRY_SECONDS_MAX = 24 * 3600
"""What asks for more is answered with this: nobody's header stops us for good."""


def retry_after_seconds(value: str, date: str = "") -> float | None:
    """Seconds to wait; None when the header says nothing that can be read.

    Args:
        value: of Retry-After: whole seconds, or a date.
        date: of the answer's own Date, which a date is measured against, so that no clock of ours has to agree.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), RETRY_SECONDS_MAX))
    try:
        wait = (parsedate_to_datetime(text) - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, 0.0), float(RETRY_SECONDS_MAX))
