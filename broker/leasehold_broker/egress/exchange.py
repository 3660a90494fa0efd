"""One request and its answer. Owns the order of the gate: host, caller, provider, route, lease, headers, then the body.

Every refusal leaves through one exit: recorded, then answered. Every admitted call is ended exactly once, in one step
that no cancellation reaches.
"""

import asyncio
from typing import TYPE_CHECKING

import structlog

from leasehold_broker.domain.call import CallEnd, CallOutcome, CallPlan
from leasehold_broker.domain.honeytokens import TrapSprung
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.egress.answers import refusal_answer, status_of
from leasehold_broker.egress.body_gate import check_media, parse_object
from leasehold_broker.egress.form_gate import form_boundary, parse_form
from leasehold_broker.egress.header_gate import caller_through, check_origin, shown_credentials, without_credentials
from leasehold_broker.egress.http1 import RequestHead, too_large
from leasehold_broker.egress.parts import EgressParts, Target
from leasehold_broker.egress.relay import Client, Relay
from leasehold_broker.ports.provider import Json, Provider, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

METHODS = frozenset({"GET", "POST"})
INLINE_BYTES_MAX = 64 * 1024
"""A body up to this is read on the loop: that takes about a millisecond, a thread would take longer."""

_log = structlog.get_logger("leasehold.egress")


class Exchange:
    """One request from its head to the last byte of its answer."""

    __slots__ = (
        "_client",
        "_cut",
        "_headers",
        "_lease",
        "_method",
        "_parts",
        "_peer",
        "_plan",
        "_provider_name",
        "_relay",
        "_request_id",
        "_route",
        "_target",
        "gone",
    )

    def __init__(self, parts: EgressParts, client: Client, peer: Peer | None) -> None:
        """Serve one request of `client`; `peer` is None when the kernel did not say who it is."""
        self._parts = parts
        self._client = client
        self._peer = peer
        self._request_id = parts.entropy.bytes(12).hex()
        self._method = ""
        self._provider_name = ""
        self._target: Target | None = None
        self._route: Route | None = None
        self._headers: Mapping[str, str] = {}
        self._lease: Lease | None = None
        self._plan: CallPlan | None = None
        self._relay: Relay | None = None
        self._cut: tuple[CallEnd, Refusal] | None = None
        self.gone = False

    def begin(self, head: RequestHead, peer: Peer, hosts: frozenset[str]) -> None:
        """Decide on the head alone, before a byte of the body is read.

        Raises:
            Refusal: the request is refused; TrapSprung when a honeytoken was presented with it.
        """
        try:
            self._begin(head, peer, hosts)
        except Refusal as refusal:
            honeytoken = self._parts.sprung_by(shown_credentials(head.headers, head.query))
            if honeytoken is None:
                raise
            raise TrapSprung.over(refusal, honeytoken) from None

    def _begin(self, head: RequestHead, peer: Peer, hosts: frozenset[str]) -> None:
        self._method = head.method
        self._parts.counts.requests += 1
        check_origin(head.headers, hosts)
        caller, headers = caller_through(self._parts.proxy, peer, head.headers)
        self._peer = caller
        name, slash, below = head.path[1:].partition("/")
        target = self._parts.targets.get(name) if slash else None
        if target is None or head.method not in METHODS:
            known = ", ".join(sorted(self._parts.targets))
            raise Refusal(
                Reason.ROUTE_NOT_ALLOWED,
                f"no such route; send GET or POST to a path that starts with one of: {known}",
            )
        self._target = target
        provider = target.provider
        self._provider_name = provider.name
        self._route = route = provider.route(head.method, slash + below, head.query)
        token = provider.credential(headers, head.query)
        self._lease = lease = self._parts.calls.lease_of(token, caller)
        self._parts.calls.scope_of(lease, provider.name)
        self._headers = without_credentials(headers)
        if route.takes_body:
            if route.form:
                form_boundary(head.headers)
            else:
                check_media(head.headers)
            if (head.content_length or 0) > self._parts.limits.body_bytes_max:
                raise too_large(self._parts.limits).refusal
        elif head.chunked or head.content_length:
            raise Refusal(Reason.BODY_INVALID, "this route takes no body; send none")

    @property
    def caller(self) -> Peer | None:
        """Whose request it is, once its head was taken: another than the peer behind a trusted proxy."""
        return self._peer

    async def run(self, body: bytes) -> None:
        """Carry the request whose head was taken and whose body is complete."""
        try:
            await self._carry(body)
        except Refusal as refusal:
            await self.refuse(refusal)
        except BaseException:
            # A fault of ours, or the loop is closing: the caller must not wait for an answer that will not come.
            self._client.abort()
            raise

    async def refuse(self, refusal: Refusal, status: int | None = None) -> None:
        """Record the refusal, then answer it. The one exit of every refusal.

        Args:
            refusal: why.
            status: of a framing error; by the reason when None.
        """
        try:
            await self._record_and_answer(refusal, status)
        except BaseException:
            self._client.abort()
            raise

    async def _record_and_answer(self, refusal: Refusal, status: int | None) -> None:
        plan, route = self._plan, self._route
        model = plan.model if plan is not None else (route.path_model if route is not None else None)
        operation = route.operation if route is not None else ""
        try:
            await self._parts.refusals.call_refused(
                refusal, self._peer, self._request_id, self._lease, self._provider_name, operation, model
            )
        except Refusal as unrecorded:
            # What cannot be recorded is not answered as if it were.
            refusal, status = unrecorded, None
        self._parts.counts.refusals[refusal.reason.value] += 1
        if self.gone:
            return
        provider = None if self._target is None else self._target.provider
        self._client.write(
            refusal_answer(
                status or status_of(refusal),
                refusal,
                self._request_id,
                provider,
                close=self._client.closes,
                body_follows=self._method != "HEAD",
            )
        )
        self._client.answered()

    # what the connection says

    def client_gone(self) -> None:
        """The caller has closed its connection."""
        self.gone = True
        if self._relay is not None:
            self._relay.client_gone()

    def cut(self, end: CallEnd, refusal: Refusal) -> None:
        """The sidecar stops."""
        self._cut = (end, refusal)
        if self._relay is not None:
            self._relay.cut(end, refusal)

    def pause(self) -> None:
        """The caller reads too slowly."""
        if self._relay is not None:
            self._relay.pause()

    def resume(self) -> None:
        """The caller reads again."""
        if self._relay is not None:
            self._relay.resume()

    # the call

    async def _carry(self, body: bytes) -> None:
        target, route, lease, parts = self._target, self._route, self._lease, self._parts
        if target is None or route is None or lease is None:
            raise RuntimeError("an exchange runs only after its head was taken")
        provider = target.provider
        if len(body) <= INLINE_BYTES_MAX:
            parsed, plan = self._read(provider, route, body)
        else:
            # A large body takes time: meanwhile the calls of all others go on.
            loop = asyncio.get_running_loop()
            parsed, plan = await loop.run_in_executor(parts.reader, self._read, provider, route, body)
        self._plan = plan
        del body
        self._relay = relay = Relay(target, route, plan, parsed, self._request_id, self._client, parts.counts)
        if self._cut is not None:
            raise self._cut[1]
        admitted = await parts.calls.admit(lease, plan, self._request_id, relay.cut)

        def on_end(outcome: CallOutcome) -> None:
            parts.counts.ends[outcome.end.value] += 1
            self._end(admitted.call_id, outcome)

        if self.gone:
            relay.client_gone()
        try:
            request = provider.request(route, self._headers, parsed, admitted.output_tokens_limit, admitted.key_kind)
        except BaseException:
            on_end(CallOutcome(CallEnd.NOT_SENT, sent=False))
            raise
        await relay.run(parts.upstream, admitted, request, on_end)
        if relay.refusal is not None:
            raise relay.refusal

    def _read(self, provider: Provider, route: Route, body: bytes) -> tuple[dict[str, Json] | None, CallPlan]:
        """The checked body, and what it asks for. Touches nothing that others write: large bodies are read in a thread.

        Raises:
            Refusal: the body is refused.
        """
        parsed: dict[str, Json] | None = None
        if route.form:
            parsed = parse_form(form_boundary(self._headers), body)
        elif route.takes_body:
            parsed = parse_object(body)
        return parsed, provider.plan(route, self._headers, parsed, len(body))

    def _end(self, call_id: str, outcome: CallOutcome) -> None:
        try:
            self._parts.calls.end(call_id, outcome)
        except Exception as fault:  # noqa: BLE001 - whatever broke, the answer must end; a restart charges the hold
            self._parts.counts.settle_failures += 1
            _log.error("not_settled", call=call_id, kind=type(fault).__name__)
