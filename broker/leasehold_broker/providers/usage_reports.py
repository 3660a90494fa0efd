"""What the vendors' admin APIs say was used, and what it cost: questions and answers, pure. Opens no connection.

OpenAI: GET /v1/organization/usage/{completions,embeddings,moderations,images,audio_speeches,audio_transcriptions} by
key (tokens, and calls of each kind), /v1/organization/costs by key and day (money as a number).
Anthropic: GET /v1/organizations/usage_report/messages by key, /v1/organizations/cost_report by day (money as a text of
cents). All are paged: `has_more`, `next_page`, asked again with `page`.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from leasehold_broker.domain.reconciliation import ALL_KEYS, BILLED, COST, INPUT, OUTPUT, Counted
from leasehold_broker.ports.usage_report import ReportAsk, Reporting, UsageReportError

DAYS_MAX = 31
PAGES_MAX = 100
OPENAI_KINDS = ("completions", "embeddings", "moderations", "images", "audio_speeches", "audio_transcriptions")
NO_KEY = "(no key)"
"""Usage without a key, such as of a console."""
_MICRO_PER_USD = 1_000_000
_MICRO_PER_CENT = 10_000
Statement = dict[tuple[str, str], Counted]


class _Result(msgspec.Struct):
    """One result of any of the reports; what a report does not have stays at its default."""

    api_key_id: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    uncached_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation: dict[str, int] = {}
    num_model_requests: int = 0
    amount: Any = None
    currency: str = "usd"


class _Bucket(msgspec.Struct):
    results: list[_Result]
    start_time: int = 0
    starting_at: str = ""

    @property
    def day(self) -> str:
        """The UTC day of the bucket."""
        return self.starting_at[:10] or datetime.fromtimestamp(self.start_time, UTC).date().isoformat()


class _Page(msgspec.Struct):
    data: list[_Bucket]
    has_more: bool = False
    next_page: str | None = None


def openai(first: date, days: int) -> Reporting:
    """OpenAI's statement."""
    start, end = _seconds(first), _seconds(first + timedelta(days=days))
    window = (("start_time", str(start)), ("end_time", str(end)), ("bucket_width", "1d"), ("limit", str(DAYS_MAX)))

    def ask(path: str, *query: tuple[str, str]) -> ReportAsk:
        return ReportAsk(f"/v1/organization/{path}", (*window, *query), "authorization", "Bearer ")

    found: Statement = {}
    for kind in OPENAI_KINDS:
        for bucket in (yield from _pages(ask(f"usage/{kind}", ("group_by", "api_key_id")))):
            for result in bucket.results:
                place = (result.api_key_id or NO_KEY, bucket.day)
                counted = found.setdefault(place, Counted())
                counted.add(result.input_tokens, result.output_tokens, result.num_model_requests)
    yield from _costs(found, ask("costs", ("group_by", "api_key_id")), _openai_micro_usd, by_key=True)
    return found


def anthropic(first: date, days: int) -> Reporting:
    """Anthropic's statement."""
    window = (
        ("starting_at", f"{first.isoformat()}T00:00:00Z"),
        ("ending_at", f"{(first + timedelta(days=days)).isoformat()}T00:00:00Z"),
        ("bucket_width", "1d"),
        ("limit", str(DAYS_MAX)),
    )

    def ask(path: str, *query: tuple[str, str]) -> ReportAsk:
        headers = {"anthropic-version": "2023-06-01"}
        return ReportAsk(f"/v1/organizations/{path}", (*window, *query), "x-api-key", headers=headers)

    found: Statement = {}
    for bucket in (yield from _pages(ask("usage_report/messages", ("group_by[]", "api_key_id")))):
        for result in bucket.results:
            place = (result.api_key_id or NO_KEY, bucket.day)
            read = result.uncached_input_tokens + result.cache_read_input_tokens + sum(result.cache_creation.values())
            found.setdefault(place, Counted()).add(read, result.output_tokens)
    yield from _costs(found, ask("cost_report"), _anthropic_micro_usd, by_key=False)
    return found


@dataclass(frozen=True, slots=True)
class Account:
    """What a vendor tells: how it is asked, and what of it is by key."""

    statement: Callable[[date, int], Reporting]
    by_key: tuple[str, ...]


VENDORS = {
    "openai": Account(openai, (INPUT, OUTPUT, BILLED, COST)),
    "anthropic": Account(anthropic, (INPUT, OUTPUT)),
}


def _pages(ask: ReportAsk) -> Generator[ReportAsk, bytes, list[_Bucket]]:
    found: list[_Bucket] = []
    page = ""
    for _ in range(PAGES_MAX):
        query = (*ask.query, ("page", page)) if page else ask.query
        body = yield ReportAsk(ask.path, query, ask.key_header, ask.key_prefix, ask.headers)
        try:
            answer = msgspec.json.decode(body, type=_Page)
        except (ValueError, RecursionError) as error:
            message = f"{ask.path} answered in a shape that is not known here: {error}"
            raise UsageReportError(message) from None
        found.extend(answer.data)
        if not answer.has_more:
            return found
        if not answer.next_page or answer.next_page == page:
            break
        page = answer.next_page
    message = f"{ask.path} has pages without an end; nothing was compared"
    raise UsageReportError(message)


def _costs(
    found: Statement, ask: ReportAsk, read: Callable[[_Result], Decimal], *, by_key: bool
) -> Generator[ReportAsk, bytes, None]:
    """Add up the money of each day, and of each key where it is told; rounded once for each."""
    sums: dict[tuple[str, str], Decimal] = {}
    for bucket in (yield from _pages(ask)):
        sums.setdefault((ALL_KEYS, bucket.day), Decimal(0))
        for result in bucket.results:
            amount = _amount(result, bucket.day, read)
            for key in (ALL_KEYS, result.api_key_id or NO_KEY) if by_key else (ALL_KEYS,):
                sums[key, bucket.day] = sums.get((key, bucket.day), Decimal(0)) + amount
    for place, total in sums.items():
        found.setdefault(place, Counted()).cost_micro_usd += round(total)


def _amount(result: _Result, day: str, read: Callable[[_Result], Decimal]) -> Decimal:
    try:
        return read(result)
    except (InvalidOperation, TypeError, KeyError, ValueError):
        message = f"an amount of {day} cannot be read"
        raise UsageReportError(message) from None


def _openai_micro_usd(result: _Result) -> Decimal:
    if str(result.amount["currency"]).lower() != "usd":
        raise ValueError
    return Decimal(str(result.amount["value"])) * _MICRO_PER_USD


def _anthropic_micro_usd(result: _Result) -> Decimal:
    if result.currency.lower() != "usd":
        raise ValueError
    return Decimal(str(result.amount)) * _MICRO_PER_CENT


def _seconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
