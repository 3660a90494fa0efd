"""Names of the accounts of windows and buckets. Owns what can be read from such a name: when the account is over.

An account outlives the policy that asked for it, so its name alone must say how long it counts. The last two parts are
`|span|start+length`, in seconds: of a calendar window its own length, of a bucket how long it counts; `0+0` for ever.
"""

import re

from leasehold_broker.domain.amounts import ZERO
from leasehold_broker.domain.ledger import Account, AccountId
from leasehold_broker.domain.limits import WindowLimit
from leasehold_broker.domain.windows import Rolling, Window

WINDOW_PREFIX = "window:"
_TIMES = re.compile(r"\|([^|]+)\|(-?\d+)\+(\d+)")
_ROLLING = "rolling-"


def budget_name(whose: str, span: str) -> str:
    """What a budget over time is called, whatever window is running: "on:key:prod|day"."""
    return f"{whose}|{span}"


def budget_of(account: AccountId) -> str:
    """The budget that this account of a window or bucket belongs to."""
    return account.removeprefix(WINDOW_PREFIX).rpartition("|")[0]


def window_account(whose: str, limit: WindowLimit, window: Window) -> AccountId:
    """The account of a calendar window."""
    length = window.end_ms - window.start_ms
    return AccountId(f"{WINDOW_PREFIX}{whose}|{limit.span_name}|{window.start_ms // 1000}+{length // 1000}")


def bucket_account(whose: str, rolling: Rolling, start_ms: int) -> AccountId:
    """The account of one bucket of a rolling window."""
    return AccountId(f"{WINDOW_PREFIX}{whose}|{rolling}|{start_ms // 1000}+{rolling.counted_ms // 1000}")


def pool_account(whose: str, rolling: Rolling) -> AccountId:
    """What a rolling window as a whole is called."""
    return AccountId(f"{WINDOW_PREFIX}{whose}|{rolling}")


def bucket_start_ms(account: AccountId) -> int | None:
    """When this bucket began, in steady time; None when it is not a bucket."""
    times = _times(account)
    return times[1] if times is not None and times[0] else None


def bucket_end_ms(account: AccountId) -> int:
    """From when on this bucket no longer counts, in steady time."""
    times = _times(account)
    return 0 if times is None else times[1] + times[2]


def running(account: AccountId, wall_ms: int, steady_ms: int) -> bool:
    """True when this window, or bucket, counts now."""
    times = _times(account)
    if times is None:
        return False
    rolling, start, length = times
    if rolling:
        return start <= steady_ms < start + length
    return not length or start <= wall_ms < start + length


def window_over(account: Account, wall_ms: int, steady_ms: int) -> bool:
    """True when this is the account of a window that may be forgotten.

    A calendar window is kept for as long again as it was: a wall clock that is set back a little must find what was
    spent, not an empty budget.
    """
    if not account.id.startswith(WINDOW_PREFIX):
        return False
    times = _times(account.id)
    if times is None:
        return True
    rolling, start, length = times
    if not length:
        return account.settled == ZERO
    return steady_ms >= start + length if rolling else wall_ms >= start + 2 * length


def kept_ms(account: AccountId, seconds_max: int) -> int:
    """How long an account must have been over before it is forgotten; buckets not at all: their time cannot be set."""
    times = _times(account)
    if times is None or times[0]:
        return 0
    return min(times[2], seconds_max * 1000)


def _times(account: AccountId) -> tuple[bool, int, int] | None:
    found = _TIMES.fullmatch(account, account.rfind("|", 0, account.rfind("|")))
    if found is None:
        return None
    return found[1].startswith(_ROLLING), int(found[2]) * 1000, int(found[3]) * 1000
