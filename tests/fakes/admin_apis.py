"""The admin APIs of OpenAI and Anthropic, as far as they tell usage and cost: real HTTP, documented shapes, paged.

The fake knows calls, and sums them by what is asked: day, key, page. It refuses a wrong key, a missing version, and a
parameter that it does not know.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.fakes.planted import planted

ADMIN_KEY = planted("admin")
BUCKETS_PER_PAGE = 2
OPENAI_USAGE = "/v1/organization/usage/"
OPENAI_KINDS = ("completions", "embeddings", "moderations", "images", "audio_speeches", "audio_transcriptions")
ANTHROPIC_USAGE = "/v1/organizations/usage_report/messages"


@dataclass(frozen=True)
class Served:
    """One call that the provider has billed."""

    day: date
    key_id: str
    input_tokens: int
    output_tokens: int
    cost_micro_usd: int
    cached_tokens: int = 0
    kind: str = "completions"


@dataclass
class AdminApis:
    """What was served, and what was asked."""

    served: list[Served] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    fault: int = 0
    redirect: str = ""
    endless: bool = False

    def answer(self, path: str, query: dict[str, list[str]], headers: dict[str, str]) -> tuple[int, object]:
        """Status and body."""
        self.asked.append(path)
        if self.fault:
            return self.fault, {"error": "planted"}
        openai = path.startswith("/v1/organization/")
        shown = headers.get("authorization") if openai else headers.get("x-api-key")
        if shown != (f"Bearer {ADMIN_KEY}" if openai else ADMIN_KEY):
            return 401, {"error": "invalid admin key"}
        if not openai and headers.get("anthropic-version") != "2023-06-01":
            return 400, {"error": "anthropic-version"}
        if query.pop("bucket_width") != ["1d"] or int(query.pop("limit")[0]) > 31:
            return 400, {"error": "bucket_width, limit"}
        if openai:
            first, end = (
                datetime.fromtimestamp(int(query.pop(name)[0]), UTC).date() for name in ("start_time", "end_time")
            )
        else:
            first, end = (datetime.fromisoformat(query.pop(name)[0]).date() for name in ("starting_at", "ending_at"))
        days = [first + timedelta(days=n) for n in range((end - first).days)]
        start = int(query.pop("page", ["page_0"])[0].removeprefix("page_"))
        grouped = query.pop("group_by" if openai else "group_by[]", None)
        if query:
            return 400, {"error": f"unknown {sorted(query)}"}
        bucket = self.openai_bucket if openai else self.anthropic_bucket
        more = self.endless or start + BUCKETS_PER_PAGE < len(days)
        return 200, {
            "object": "page",
            "data": [bucket(path, day, grouped) for day in days[start : start + BUCKETS_PER_PAGE]],
            "has_more": more,
            "next_page": f"page_{start + BUCKETS_PER_PAGE}" if more else None,
        }

    def of(self, day: date) -> list[Served]:
        """Calls of a day."""
        return [one for one in self.served if one.day == day]

    def openai_bucket(self, path: str, day: date, grouped: list[str] | None) -> dict:
        """One day of OpenAI's: cached tokens are among the input; money is a number of dollars."""
        start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        bucket = {"object": "bucket", "start_time": start, "end_time": start + 86_400, "results": []}
        assert grouped == ["api_key_id"]
        calls = self.of(day)
        kind = path.removeprefix(OPENAI_USAGE)
        for key in dict.fromkeys(one.key_id for one in calls):
            mine = [one for one in calls if one.key_id == key]
            if path == "/v1/organization/costs":
                dollars = float(Decimal(sum(one.cost_micro_usd for one in mine)) / 10**6)
                bucket["results"].append(
                    {"object": "organization.costs.result", "amount": {"value": dollars, "currency": "usd"},
                     "line_item": None, "project_id": None, "api_key_id": key}
                )  # fmt: skip
            elif kind in OPENAI_KINDS:
                bucket["results"] += self.openai_usage(kind, key, [one for one in mine if one.kind == kind])
            else:
                raise AssertionError(path)
        return bucket

    def openai_usage(self, kind: str, key: str, calls: list[Served]) -> list[dict]:
        """One key's calls of a kind: tokens where the kind has them; no result where there were none."""
        if not calls:
            return []
        told = {
            "object": f"organization.usage.{kind}.result", "num_model_requests": len(calls), "api_key_id": key,
            "project_id": None, "user_id": None, "model": None,
        }  # fmt: skip
        units = {"images": "images", "audio_speeches": "characters", "audio_transcriptions": "seconds"}
        if kind in units:
            return [told | {units[kind]: len(calls)}]
        told["input_tokens"] = sum(one.input_tokens for one in calls)
        if kind == "completions":
            told["output_tokens"] = sum(one.output_tokens for one in calls)
            told["input_cached_tokens"] = sum(one.cached_tokens for one in calls)
        return [told]

    def anthropic_bucket(self, path: str, day: date, grouped: list[str] | None) -> dict:
        """One day of Anthropic's: input is told in parts; money is a text of cents."""
        bucket = {"starting_at": f"{day}T00:00:00Z", "ending_at": f"{day + timedelta(days=1)}T00:00:00Z", "results": []}
        calls = self.of(day)
        if path == ANTHROPIC_USAGE:
            assert grouped == ["api_key_id"]
            bucket["results"] = [
                {
                    "uncached_input_tokens": one.input_tokens - one.cached_tokens,
                    "cache_creation": {
                        "ephemeral_1h_input_tokens": 0,
                        "ephemeral_5m_input_tokens": one.cached_tokens // 2,
                    },
                    "cache_read_input_tokens": one.cached_tokens - one.cached_tokens // 2,
                    "output_tokens": one.output_tokens,
                    "server_tool_use": {"web_search_requests": 0},
                    "api_key_id": one.key_id, "workspace_id": None, "model": None, "service_tier": None,
                    "context_window": None,
                }
                for one in calls
            ]  # fmt: skip
        else:
            bucket["results"] = [
                {"currency": "USD", "amount": str(Decimal(one.cost_micro_usd) / 10**4), "workspace_id": None}
                for one in calls
            ]
        return bucket


@contextmanager
def serving(apis: AdminApis) -> Iterator[str]:
    """Serve on loopback; gives the origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if apis.redirect:
                self.send_response(302)
                self.send_header("location", apis.redirect)
                self.end_headers()
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = apis.answer(parts.path, parse_qs(parts.query), headers)
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="admin apis")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
