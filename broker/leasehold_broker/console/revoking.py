"""Revocations: the list, one with its progress, and a new one, which is looked at first and confirmed by its count."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from google.protobuf.duration_pb2 import Duration

from leasehold.v1 import revocation_service_pb2 as revocation
from leasehold_broker.console.parts import Desk, Form, Visit
from leasehold_broker.console.rendering import Rendering, selector_words
from leasehold_broker.console.streaming import stream
from leasehold_broker.domain.collector_rules import Role
from leasehold_broker.domain.reasons import field_invalid

PAGE_SIZE = 50
HOLDERS_SHOWN = 200
LEASES_SHOWN = 200
KINDS = ("subject", "lease", "key", "provider", "environment", "label", "sidecar", "everything")
CAUSES = {
    name.removeprefix("REVOCATION_CAUSE_").lower().replace("_", "-"): number
    for name, number in revocation.RevocationCause.items()
    if number
}
BLOCK_HOURS_MAX = 366 * 24

Page = Callable[[web.Request, Visit], Awaitable[web.StreamResponse]]
Action = Callable[[web.Request, Visit, Form], Awaitable[web.StreamResponse]]
SERVICE = "leasehold.v1.RevocationService"


class Revoking:
    """See the module."""

    def __init__(
        self,
        rendering: Rendering,
        desk: Desk,
        streaming: Callable[[asyncio.BaseTransport | None], None],
        request_id: Callable[[], str],
    ) -> None:
        """Ask the desk; `request_id` makes the id that keeps a form that is sent twice from revoking twice."""
        self._rendering = rendering
        self._desk = desk
        self._streaming = streaming
        self._request_id = request_id

    def pages(self) -> Mapping[str, Page]:
        """By path."""
        return {
            "/revocations": self._list,
            "/revocations/new": self._new,
            "/revocations/{epoch:[0-9]{1,18}}": self._one,
            "/revocations/{epoch:[0-9]{1,18}}/live": self._live,
        }

    def actions(self) -> Mapping[str, Action]:
        """By path."""
        return {
            "/revocations/preview": self._preview,
            "/revocations": self._revoke,
            "/revocations/{epoch:[0-9]{1,18}}/lift": self._lift,
        }

    async def _list(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        asked = revocation.ListRevocationsRequest(page_size=PAGE_SIZE, page_token=request.query.get("page", "")[:512])
        found = await self._ask(visit, "ListRevocations", asked)
        lifted = {entry.lifts_epoch for entry in found.revocations}
        return self._html(
            "revocations.html",
            visit,
            entries=found.revocations,
            lifted=lifted,
            next=found.next_page_token,
            older=bool(asked.page_token),
            responder=visit.has(Role.RESPONDER),
        )

    async def _new(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        given = {name: request.query.get(name, "")[:256] for name in ("kind", "value", "issuer")}
        return self._html("revocation_new.html", visit, kinds=KINDS, causes=CAUSES, given=given)

    async def _preview(self, _request: web.Request, visit: Visit, form: Form) -> web.StreamResponse:
        asked = _asked(form, self._request_id())
        asked.validate_only = True
        found = await self._ask(visit, "RevokeLeases", asked)
        fields = ("kind", "value", "issuer", "label", "cause", "note", "block_hours")
        holders = sorted(found.holders, key=lambda one: (-one.leases, one.sidecar, one.subject))
        return self._html(
            "revocation_confirm.html",
            visit,
            what=selector_words(asked.selector),
            count=len(found.matching_leases),
            incomplete=found.matching_incomplete,
            leases=found.matching_leases[:LEASES_SHOWN],
            holders=holders[:HOLDERS_SHOWN],
            fields={name: form.text(name) for name in fields},
            block=form.ticked("block"),
            request_id=self._request_id(),
        )

    async def _revoke(self, _request: web.Request, visit: Visit, form: Form) -> web.StreamResponse:
        asked = _asked(form, form.text("request_id"))
        if not form.ticked("whatever"):
            if not form.text("expect"):
                raise field_invalid("expect", "is empty: type the number of leases that you have seen, or tick the box")
            asked.leases_max = form.count("expect")
        done = await self._ask(visit, "RevokeLeases", asked)
        return _see(done.progress.entry.epoch)

    async def _one(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        found = await self._ask(visit, "GetRevocation", revocation.GetRevocationRequest(name=_name(request)))
        progress = found.progress
        return self._html(
            "revocation.html",
            visit,
            entry=progress.entry,
            progress=_rows(progress),
            request_id=self._request_id(),
            liftable=progress.entry.block_new and visit.has(Role.RESPONDER),
        )

    async def _live(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        wanted = revocation.WatchRevocationRequest(name=_name(request))
        answers = self._desk.watch(f"{SERVICE}/WatchRevocation", wanted, visit.identity, visit.peer)
        return await stream(request, visit, answers, _Progress(self._rendering), self._streaming)

    async def _lift(self, request: web.Request, visit: Visit, form: Form) -> web.StreamResponse:
        asked = revocation.LiftRevocationRequest(
            request_id=form.text("request_id"), name=_name(request), note=form.text("note")
        )
        done = await self._ask(visit, "LiftRevocation", asked)
        return _see(done.progress.entry.epoch)

    async def _ask(self, visit: Visit, method: str, request: Any) -> Any:
        return await self._desk.call(f"{SERVICE}/{method}", request, visit.identity, visit.peer)

    def _html(self, template: str, visit: Visit, **shown: Any) -> web.Response:
        return web.Response(text=self._rendering.page(template, visit=visit, **shown), content_type="text/html")


class _Progress:
    """How far a revocation has come."""

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering
        self._last: Any = None

    @property
    def complete(self) -> bool:
        """All have acknowledged."""
        return self._last is not None and bool(self._last.complete)

    def take(self, answer: Any) -> None:
        """The newest counts alone."""
        self._last = answer.progress

    def draw(self) -> tuple[str, str]:
        """The table."""
        if self._last is None:
            return "", ""
        return self._rendering.page("progress.html", progress=_rows(self._last)), ""


def _rows(progress: Any) -> dict[str, Any]:
    epoch = progress.entry.epoch
    waiting = [one for one in progress.sidecars if one.applied_epoch < epoch]
    rest = [one for one in progress.sidecars if one.applied_epoch >= epoch]
    return {
        "epoch": epoch,
        "complete": progress.complete,
        "total": len(progress.sidecars),
        "acknowledged": len(rest),
        "ended": sum(one.leases_ended for one in progress.sidecars),
        "cut": sum(one.calls_cut for one in progress.sidecars),
        "sidecars": [*waiting, *rest][:HOLDERS_SHOWN],
    }


def _asked(form: Form, request_id: str) -> revocation.RevokeLeasesRequest:
    asked = revocation.RevokeLeasesRequest(
        request_id=request_id, selector=_selector(form), note=form.text("note"), block_new=form.ticked("block")
    )
    cause = form.text("cause")
    if cause:
        if cause not in CAUSES:
            raise field_invalid("cause", f"must be one of {', '.join(CAUSES)}")
        asked.cause = revocation.RevocationCause.ValueType(CAUSES[cause])
    if form.text("block_hours"):
        asked.block_duration.CopyFrom(Duration(seconds=form.count("block_hours", BLOCK_HOURS_MAX) * 3600))
    return asked


def _selector(form: Form) -> revocation.RevocationSelector:
    kind, value = form.text("kind"), form.text("value")
    if kind == "everything":
        if value:
            raise field_invalid("value", "is given, and everything was chosen: choose what is meant")
        return revocation.RevocationSelector(everything=True)
    if kind not in KINDS:
        raise field_invalid("kind", f"must be one of {', '.join(KINDS)}")
    if not value:
        raise field_invalid("value", "is empty; name what is to be revoked")
    if kind == "subject":
        subject = revocation.SubjectSelector(issuer=form.text("issuer"), subject=value)
        return revocation.RevocationSelector(subject=subject)
    if kind == "label":
        label = revocation.LabelSelector(name=form.text("label"), value=value)
        return revocation.RevocationSelector(label=label)
    selector = revocation.RevocationSelector()
    setattr(selector, kind, value)
    return selector


def _name(request: web.Request) -> str:
    return f"revocations/{request.match_info['epoch']}"


def _see(epoch: int) -> web.Response:
    return web.Response(status=303, headers={"Location": f"/revocations/{epoch}"})
