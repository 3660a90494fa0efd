"""From the provider's answer to the caller, byte by byte, with the meter in between. Owns how a sent call ends.

Whatever happens first (answer over, upstream failed, caller gone, lease cut) decides the end, once; what comes after it
is ignored. Refuses to batch, to follow redirects, and to relay what it cannot read (content codings).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from leasehold_broker.domain.call import CallEnd, CallOutcome, CallPlan
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.egress.answers import relayed_head
from leasehold_broker.egress.parts import EgressCounts, Target
from leasehold_broker.egress.redaction import Redactor
from leasehold_broker.flows.call import Admitted
from leasehold_broker.ports.provider import Json, Meter, Route, ToldLimit, UpstreamRequest
from leasehold_broker.ports.upstream import Upstream, UpstreamCall, UpstreamFailure

_log = structlog.get_logger("leasehold.egress")

REFUSAL_BYTES_MAX = 16 * 1024
"""Of an error's body that is read for what it says of the key; a longer one says nothing."""
LAST_CHUNK = b"0\r\n\r\n"

_FAILURES = {
    UpstreamFailure.UNRESOLVED: "its name could not be resolved",
    UpstreamFailure.ADDRESS_FORBIDDEN: "its name leads to a private address, which is not configured",
    UpstreamFailure.CONNECT_FAILED: "it takes no connection",
    UpstreamFailure.TLS_FAILED: "its certificate could not be verified",
    UpstreamFailure.CONNECT_TIMEOUT: "it took too long to connect",
    UpstreamFailure.FIRST_BYTE_TIMEOUT: "it did not answer in time",
    UpstreamFailure.IDLE_TIMEOUT: "its answer stopped coming",
    UpstreamFailure.CLOSED_EARLY: "it closed the connection before the end of its answer",
    UpstreamFailure.BAD_ANSWER: "its answer was not well-formed HTTP",
    UpstreamFailure.OVERLOADED: "too many connections to it are open",
}


class Client(Protocol):
    """The caller's connection, as the relay sees it."""

    @property
    def closes(self) -> bool:
        """True when the connection is closed after this answer."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes; they are buffered when the caller is slow, and then `pause` follows."""
        ...

    def answered(self) -> None:
        """The answer is complete."""
        ...

    def abort(self) -> None:
        """Close so that the caller sees that its answer is not complete."""
        ...


class Relay:
    """Carries one admitted call. The listener of its upstream call."""

    __slots__ = (
        "_admitted",
        "_call",
        "_client",
        "_counts",
        "_done",
        "_end",
        "_head_sent",
        "_meter",
        "_on_end",
        "_parsed",
        "_paused",
        "_plan",
        "_redactor",
        "_refusal_body",
        "_refusal_headers",
        "_request_id",
        "_route",
        "_sent",
        "_status",
        "_target",
        "refusal",
    )

    def __init__(
        self,
        target: Target,
        route: Route,
        plan: CallPlan,
        parsed: dict[str, Json] | None,
        request_id: str,
        client: Client,
        counts: EgressCounts,
    ) -> None:
        """Carry the call that `plan` describes; it may still be cut or left before it is admitted."""
        self._target = target
        self._route = route
        self._plan = plan
        self._parsed = parsed
        self._request_id = request_id
        self._client = client
        self._counts = counts
        self._admitted: Admitted | None = None
        self._on_end: Callable[[CallOutcome], None] | None = None
        self._call: UpstreamCall | None = None
        self._meter: Meter | None = None
        self._redactor: Redactor | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._end: CallEnd | None = None
        self._head_sent = False
        self._paused = False
        self._sent = False
        self._status = 0
        self._refusal_headers: dict[str, str] = {}
        self._refusal_body = bytearray()
        self.refusal: Refusal | None = None

    async def run(
        self,
        upstream: Upstream,
        admitted: Admitted,
        request: UpstreamRequest,
        on_end: Callable[[CallOutcome], None],
    ) -> None:
        """Send and relay until the end.

        Args:
            upstream: where to send it.
            admitted: the hold is durable.
            request: what is sent.
            on_end: told the outcome, synchronously, exactly once, whatever happens (also when this task is cancelled).
        """
        self._admitted = admitted
        self._on_end = on_end
        if self._end is not None:
            self._report()
            return
        try:
            provider, key, kind = self._target.provider, admitted.key, admitted.key_kind
            self._redactor = Redactor(key)
            self._call = upstream.send(self._target.origin, request, lambda: provider.key_header(key, kind), self)
            if self._paused:
                self._call.pause()
            await self._done
        finally:
            if self._end is None:
                # Cancelled from outside, or a fault: what is known now decides.
                self._stop(CallEnd.UNKNOWN)
                self._client.abort()

    # what the caller's connection and the flow say

    def client_gone(self) -> None:
        """The caller has closed its connection."""
        self._stop(CallEnd.CLIENT_GONE)

    def cut(self, end: CallEnd, refusal: Refusal) -> None:
        """The lease died, or the sidecar stops: drop the upstream now and tell the caller why, if that can be done."""
        if self._end is not None:
            return
        if self._head_sent:
            self._end_stream_with(refusal)
        else:
            self.refusal = refusal
        self._stop(end)

    def pause(self) -> None:
        """The caller reads too slowly."""
        self._paused = True
        if self._call is not None:
            self._call.pause()

    def resume(self) -> None:
        """The caller reads again."""
        self._paused = False
        if self._call is not None:
            self._call.resume()

    # what the upstream says

    def answer_started(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """See the port."""
        admitted, redactor = self._admitted, self._redactor
        if self._end is not None or admitted is None or redactor is None:
            return
        self._status = status
        # Of equal headers the first counts, as it does for the caller.
        found = dict(reversed(headers))
        if 300 <= status < 400:
            self.refusal = _unreachable(self._target, "it answered with a redirect, which is not followed")
            self._stop(CallEnd.PROVIDER_REFUSED)
            return
        if any(name == "content-encoding" and value.lower() != "identity" for name, value in headers):
            self.refusal = _unreachable(self._target, "it compressed its answer, which was not asked for")
            self._stop(CallEnd.UNKNOWN)
            return
        content_type = found.get("content-type", "")
        self._meter = self._target.provider.meter(self._route, self._plan, self._parsed, content_type)
        self._head_sent = True
        if status >= 400:
            self._refusal_headers = found
        self._client.write(
            relayed_head(
                status,
                headers,
                redactor,
                self._request_id,
                admitted.remaining_micro_usd,
                admitted.output_tokens_limit if admitted.output_lowered else None,
                close=self._client.closes,
            )
        )

    def body_received(self, data: bytes) -> None:
        """See the port."""
        meter, redactor = self._meter, self._redactor
        if self._end is not None or meter is None or redactor is None:
            return
        if self._refusal_headers and len(self._refusal_body) <= REFUSAL_BYTES_MAX:
            self._refusal_body += data[: REFUSAL_BYTES_MAX + 1]
        try:
            shown = redactor.feed(meter.feed(data))
        except Exception as fault:  # noqa: BLE001 - it read hostile bytes; whatever broke, the call must end
            self._broken(fault)
        else:
            self._relay(shown)

    def answer_finished(self) -> None:
        """See the port."""
        meter, redactor = self._meter, self._redactor
        if self._end is not None or meter is None or redactor is None:
            return
        try:
            shown = redactor.feed(meter.finish()) + redactor.flush()
        except Exception as fault:  # noqa: BLE001 - as above
            self._broken(fault)
            return
        self._relay(shown)
        self._client.write(LAST_CHUNK)
        self._counts.keys_redacted += redactor.replaced
        self._stop(CallEnd.PROVIDER_REFUSED if self._status >= 400 else CallEnd.FINISHED)
        self._client.answered()

    def answer_failed(self, failure: UpstreamFailure) -> None:
        """See the port."""
        if self._end is not None:
            return
        if not self._head_sent:
            self.refusal = _unreachable(self._target, _FAILURES[failure], detail=failure.value)
        sent = self._call is not None and self._call.sent
        self._stop(CallEnd.UPSTREAM_FAILED if sent else CallEnd.NOT_SENT)
        if self._head_sent:
            self._client.abort()

    def _broken(self, fault: Exception) -> None:
        """A fault of the meter: the answer ends as one that cannot be read. Only the fault's kind is safe to log."""
        _log.error("meter_fault", provider=self._target.provider.name, kind=type(fault).__name__)
        self.answer_failed(UpstreamFailure.BAD_ANSWER)

    # the end

    def _relay(self, data: bytes) -> None:
        if data:
            self._counts.relayed_bytes += len(data)
            self._client.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _end_stream_with(self, refusal: Refusal) -> None:
        """The last event of a stream that is cut, or a broken connection where an event could not be told apart."""
        meter, redactor = self._meter, self._redactor
        clean = meter is not None and redactor is not None and meter.at_event_boundary and not redactor.holds_back
        if not (clean and self._plan.stream and self._status < 300):
            self._client.abort()
            return
        self._relay(self._target.provider.refusal_event(refusal, self._request_id))
        self._client.write(LAST_CHUNK)
        self._client.answered()

    def _stop(self, end: CallEnd) -> None:
        """Decide the end, once."""
        if self._end is not None:
            return
        self._end = end
        if self._call is not None:
            self._sent = self._call.sent
            self._call.abort()
        self._report()
        if not self._done.done():
            self._done.set_result(None)

    def _report(self) -> None:
        if self._on_end is None or self._end is None:
            return
        on_end, self._on_end = self._on_end, None
        usage, final = self._read_meter()
        end = self._end if self._sent or self._end is not CallEnd.UNKNOWN else CallEnd.NOT_SENT
        told = self._told_limit()
        on_end(
            CallOutcome(
                end,
                self._sent,
                self._status,
                usage,
                final,
                told.wait_seconds,
                told.exhausted,
                told.refused,
            )
        )

    def _told_limit(self) -> ToldLimit:
        """What an error says of the key; nothing for every other answer."""
        nothing = ToldLimit(None, exhausted=False)
        if not self._refusal_headers:
            return nothing
        body = bytes(self._refusal_body) if len(self._refusal_body) <= REFUSAL_BYTES_MAX else b""
        try:
            return self._target.provider.told_limit(self._status, self._refusal_headers, body)
        except Exception as fault:  # noqa: BLE001 - as above: it read hostile bytes, and the call must be settled
            _log.error("meter_fault", provider=self._target.provider.name, kind=type(fault).__name__)
            return nothing

    def _read_meter(self) -> tuple[Usage | None, bool]:
        if self._meter is None:
            return None, False
        try:
            return self._meter.usage, self._meter.final
        except Exception as fault:  # noqa: BLE001 - as above: whatever broke, the call must be settled
            _log.error("meter_fault", provider=self._target.provider.name, kind=type(fault).__name__)
            return None, False


def _unreachable(target: Target, what: str, detail: str = "") -> Refusal:
    message = f"{target.provider.name} could not be reached: {what}; try again later, or tell the platform team"
    return Refusal(Reason.UPSTREAM_UNREACHABLE, message, detail=detail)
