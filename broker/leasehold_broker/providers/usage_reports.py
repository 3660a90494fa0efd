"""What the vendors' admin APIs say was used, and what it cost: questions and answers, pure. Opens no connection.

OpenAI: GET /v1/organization/usage/{completions,embeddings} by key, /v1/organization/costs by day (money as a number).
Anthropic: GET /v1/organizations/usage_report/messages by key, /v1/organizations/cost_report by day (money as a text of
cents). All are paged: `has_more`, `next_page`, asked again with `page`.
"""

from collections.abc import Callable, Generator, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from leasehold_broker.domain.reconciliation import ALL_KEYS, Counted
from leasehold_broker.ports.usage_report import ReportAsk, Reporting, UsageReportError

DAYS_MAX = 31
PAGES_MAX = 100
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
    for kind in ("completions", "embeddings"):
        for bucket in (yield from _pages(ask(f"usage/{kind}", ("group_by", "api_key_id")))):
            for result in bucket.results:
                place = (result.api_key_id or NO_KEY, bucket.day)
                found.setdefault(place, Counted()).add(result.input_tokens, result.output_tokens)
    yield from _costs(found, ask("costs"), _openai_micro_usd)
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
    yield from _costs(found, ask("cost_report"), _anthropic_micro_usd)
    return found


VENDORS = {"openai": openai, "anthropic": anthropic}


def _pages(ask: ReportAsk) -> Generator[ReportAsk, bytes, list[_Bucket]]:
    found: list[_Bucket] = []
    page = ""
    for _ in range(PAGES_MAX):
        query = (*ask.query, ("page", page)) if page else ask.query
        body = yield ReportAsk(ask.path, query, ask.key_header, ask.key_prefix, ask.headers)
        try:
            answer = msgspec.json.decode(body, type=_Page)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
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


def _costs(found: Statement, ask: ReportAsk, read: Callable[[Any], Decimal]) -> Generator[ReportAsk, bytes, None]:
    for bucket in (yield from _pages(ask)):
        total = sum(_amounts(bucket, read), Decimal(0))
        counted = found.setdefault((ALL_KEYS, bucket.day), Counted(cost_micro_usd=0))
        counted.cost_micro_usd = (counted.cost_micro_usd or 0) + round(total)


def _amounts(bucket: _Bucket, read: Callable[[Any], Decimal]) -> Iterator[Decimal]:
    for result in bucket.results:
        try:
            yield read(result)
        except (InvalidOperation, TypeError, KeyError, ValueError):
            message = f"an amount of {bucket.day} cannot be read"
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
