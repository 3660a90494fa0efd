"""The pages that only show: overview, leases, budgets, keys, and the audit log with its tail."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from leasehold.v1 import audit_service_pb2 as audit
from leasehold.v1 import budget_service_pb2 as budget
from leasehold.v1 import fleet_service_pb2 as fleet
from leasehold.v1 import key_service_pb2 as key
from leasehold.v1 import revocation_service_pb2 as revocation
from leasehold_broker.console.parts import Desk, Visit
from leasehold_broker.console.rendering import Rendering, event_row
from leasehold_broker.console.streaming import stream
from leasehold_broker.domain.collector_rules import Role
from leasehold_broker.domain.lease import LEASE_PREFIX
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.clock import Clock

EVENTS_OF_PAGE = 50
FINDINGS_SHOWN = 10
FINDINGS_READ = 500
PAGES_MAX = 4
DAY_MS = 24 * 3600 * 1000
REVOCATIONS_SHOWN = 5
TAIL_ROWS = 100
ROWS_MAX = 1000
FILTERS = ("stream", "type", "lease", "subject", "key", "outcome")
LOOKERS = (Role.RESPONDER, Role.AUDITOR)
"""Whom a section is offered; who may, the methods say."""

Page = Callable[[web.Request, Visit], Awaitable[web.StreamResponse]]


class Reading:
    """See the module."""

    def __init__(
        self,
        rendering: Rendering,
        desk: Desk,
        streaming: Callable[[asyncio.BaseTransport | None], None],
        clock: Clock,
    ) -> None:
        """Show answers of the desk."""
        self._clock = clock
        self._rendering = rendering
        self._desk = desk
        self._streaming = streaming

    def pages(self) -> Mapping[str, Page]:
        """By path."""
        return {
            "/": self._overview,
            "/leases": self._leases,
            "/budgets": self._budgets,
            "/keys": self._keys,
            "/audit": self._audit,
            "/audit/tail": self._tail,
            "/audit/live": self._live,
        }

    async def _overview(self, _request: web.Request, visit: Visit) -> web.StreamResponse:
        sidecars: list[Any] = []
        revocations: list[Any] = []
        findings: list[Any] = []
        if visit.has(*LOOKERS):
            listed = await self._ask(visit, "FleetService/ListSidecars", fleet.ListSidecarsRequest())
            sidecars = sorted(listed.sidecars, key=lambda one: (one.connected and not one.lapsed, one.name))
            page = revocation.ListRevocationsRequest(page_size=REVOCATIONS_SHOWN)
            revocations = list((await self._ask(visit, "RevocationService/ListRevocations", page)).revocations)
            findings = await self._newest(visit, "finding.")
        budgets = None
        if visit.has(*LOOKERS, Role.TREASURER):
            budgets = await self._ask(visit, "BudgetService/ListBudgets", budget.ListBudgetsRequest())
        return self._html(
            "overview.html",
            visit,
            sidecars=sidecars[:ROWS_MAX],
            connected=sum(one.connected for one in sidecars),
            revocations=revocations,
            findings=findings,
            fleet_budgets=[] if budgets is None else list(budgets.fleet_budgets)[:ROWS_MAX],
            leases=0 if budgets is None else len(_lease_rows(budgets)),
            looks=visit.has(*LOOKERS),
        )

    async def _leases(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        wanted = request.query.get("text", "")[:256]
        found = await self._ask(visit, "BudgetService/ListBudgets", budget.ListBudgetsRequest())
        rows = [row for row in _lease_rows(found) if wanted.lower() in f"{row['sidecar']} {row['lease']}".lower()]
        return self._html("leases.html", visit, rows=rows[:ROWS_MAX], total=len(rows), text=wanted)

    async def _budgets(self, _request: web.Request, visit: Visit) -> web.StreamResponse:
        found = await self._ask(visit, "BudgetService/ListBudgets", budget.ListBudgetsRequest())
        rows = [
            (one.sidecar, row)
            for one in found.sidecars
            for row in one.budgets.rows
            if not row.budget.startswith(LEASE_PREFIX)
        ]
        return self._html(
            "budgets.html",
            visit,
            fleet_budgets=list(found.fleet_budgets)[:ROWS_MAX],
            rows=rows[:ROWS_MAX],
            changes=list(found.changes)[:ROWS_MAX],
        )

    async def _keys(self, _request: web.Request, visit: Visit) -> web.StreamResponse:
        wanted = key.ListRotationsRequest(page_size=EVENTS_OF_PAGE)
        try:
            rotations = list((await self._ask(visit, "KeyService/ListRotations", wanted)).rotations)
        except Refusal as refusal:
            if refusal.reason is not Reason.ROUTE_NOT_ALLOWED:
                raise
            rotations = None
        return self._html("keys.html", visit, rotations=rotations)

    async def _audit(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        wanted = {name: request.query.get(name, "").strip()[:256] for name in FILTERS}
        asked = audit.ListEventsRequest(page_size=EVENTS_OF_PAGE, page_token=request.query.get("page", "")[:512])
        for name, value in wanted.items():
            setattr(asked, name, value)
        found = await self._ask(visit, "AuditService/ListEvents", asked)
        return self._html(
            "audit.html",
            visit,
            rows=[event_row(one) for one in found.events],
            next=found.next_page_token,
            wanted=wanted,
        )

    async def _tail(self, _request: web.Request, visit: Visit) -> web.StreamResponse:
        return self._html("tail.html", visit)

    async def _live(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        wanted = audit.WatchEventsRequest()
        last = request.headers.get("Last-Event-ID", "")
        if last.isascii() and last.isdigit() and len(last) < 19:
            wanted.after_position = int(last)
        answers = self._desk.watch("leasehold.v1.AuditService/WatchEvents", wanted, visit.identity, visit.peer)
        return await stream(request, visit, answers, _Tail(self._rendering), self._streaming)

    async def _newest(self, visit: Visit, kind: str) -> list[dict[str, Any]]:
        """The newest events of a type, of the last day. The log is read forwards: of very many, some of the newest."""
        kept: deque[dict[str, Any]] = deque(maxlen=FINDINGS_SHOWN)
        asked = audit.ListEventsRequest(type=kind, page_size=FINDINGS_READ)
        asked.start_time.FromMilliseconds(self._clock.now().wall_ms - DAY_MS)
        for _ in range(PAGES_MAX):
            found = await self._ask(visit, "AuditService/ListEvents", asked)
            kept.extend(event_row(one) for one in found.events)
            if not found.next_page_token:
                break
            asked.page_token = found.next_page_token
        return list(reversed(kept))

    async def _ask(self, visit: Visit, method: str, request: Any) -> Any:
        return await self._desk.call(f"leasehold.v1.{method}", request, visit.identity, visit.peer)

    def _html(self, template: str, visit: Visit, **shown: Any) -> web.Response:
        return web.Response(text=self._rendering.page(template, visit=visit, **shown), content_type="text/html")


class _Tail:
    """The newest events of a stream, newest first; the page never grows beyond them."""

    complete = False

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering
        self._rows: deque[dict[str, Any]] = deque(maxlen=TAIL_ROWS)

    def take(self, answer: Any) -> None:
        self._rows.extendleft(event_row(one) for one in answer.events)

    def draw(self) -> tuple[str, str]:
        if not self._rows:
            return "", ""
        return self._rendering.page("event_rows.html", rows=self._rows), str(self._rows[0]["position"])


def _lease_rows(found: Any) -> list[dict[str, Any]]:
    """What sidecars say of their leases' own budgets, one line for each lease."""
    leases: dict[tuple[str, str], dict[str, Any]] = {}
    for one in found.sidecars:
        for row in one.budgets.rows:
            if row.budget.startswith(LEASE_PREFIX):
                empty = {"sidecar": one.sidecar, "connected": one.connected, "lease": row.budget, "budgets": []}
                leases.setdefault((one.sidecar, row.budget), empty)["budgets"].append(row)
    return list(leases.values())
