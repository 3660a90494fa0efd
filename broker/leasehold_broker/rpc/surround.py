"""What surrounds every call, unary or stream. Owns the order of the checks and the one way out.

On the way in: request id, peer, metadata, deadline, occupancy, identity, audit of readers, handler. On the way out:
refusals are recorded, then answered; faults are logged and answered without detail.

Refuses to let anything else translate a refusal, and never writes a token, a message's content or an exception's text
into the log.
"""

import asyncio
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NoReturn, TypeVar

import grpc
import structlog

from leasehold.v1.rpc_errors_pb2 import RpcStatus
from leasehold_broker.domain.honeytokens import Honeytoken, TrapSprung
from leasehold_broker.domain.identity import Identity, Peer, Transport
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.trusted_proxy import CLIENT_CERTIFICATE
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.rpc.access import Access, Audit, Deadline, Method
from leasehold_broker.rpc.caller import (
    Authenticate,
    CallContext,
    CallerOf,
    PeerOf,
    ReadRecorder,
    Recorder,
    presented,
    read_shown,
)
from leasehold_broker.rpc.occupancy import Occupancy
from leasehold_broker.rpc.refusal_lines import RefusalLines
from leasehold_broker.wire import errors
from leasehold_broker.wire.fields import UUID

REQUIRED_KEY = "leasehold"
REQUIRED_VALUE = "1"
REQUEST_ID_HEADER = "leasehold-request-id"
OVERTIME_RETRY_SECONDS = 1.0
PROBES_PER_PEER_MAX = 32

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_log = structlog.get_logger("leasehold.rpc")

Answer = TypeVar("Answer")
ServicerContext = grpc.aio.ServicerContext[Any, Any]


class Certificates(Enum):
    """What a door asks of the other end over TCP, besides its token; on a Unix socket the kernel names the uid.

    NONE: no TLS, so the uid must be known. NOT_ASKED: TLS, and the token alone says who it is. NEEDED: mutual TLS, a
    call without a verified certificate is refused, whatever its uid.
    """

    NONE = auto()
    NOT_ASKED = auto()
    NEEDED = auto()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every call is surrounded with.

    Args:
        peer_of: names the other end of a transport.
        caller_of: who calls through it: another than the peer where that is a trusted proxy. Raises PEER_MISMATCH.
        authenticate: one for each access class that is served.
        recorder: writes refusals; awaited before the answer.
        read_recorder: writes readings; needed when a served method has `Audit.READ`.
        clock, entropy: time, and request ids.
        calls: open calls per peer.
        streams: open streams per peer.
        sprung_by: the honeytoken among what a refused caller presents.
        admitted: told the transport of each call whose identity is verified.
        refused: told the transport of each call that is refused, at once; slows a flooder down.
        certificates: what the door asks of the other end over TCP.
    """

    peer_of: PeerOf
    authenticate: Mapping[Access, Authenticate]
    recorder: Recorder
    clock: Clock
    entropy: Entropy
    calls: Occupancy
    streams: Occupancy
    caller_of: CallerOf = lambda peer, _certificates: peer
    read_recorder: ReadRecorder | None = None
    certificates: Certificates = Certificates.NONE
    sprung_by: Callable[[list[str]], Honeytoken | None] = lambda _credentials: None
    refused: Callable[[str], None] = lambda _transport: None
    admitted: Callable[[str], None] = lambda _transport: None


@dataclass(slots=True)
class _Known:
    """What is known of a call so far, for the event of its refusal."""

    request_id: str
    peer: Peer | None = None
    identity: Identity | None = None


class Surround:
    """Runs handlers in their surroundings."""

    def __init__(self, surroundings: Surroundings) -> None:
        """Take the surroundings."""
        self._with = surroundings
        self._probes = Occupancy("probes", PROBES_PER_PEER_MAX)
        self._streams: dict[str, Occupancy] = {}
        self._lines = RefusalLines()

    async def run(
        self,
        path: str,
        method: Method,
        context: ServicerContext,
        act: Callable[[CallContext], Awaitable[Answer]],
        *,
        stream: bool,
    ) -> Answer:
        """Admit the call and run `act`; whatever goes wrong becomes the one fitting answer.

        Args:
            path: "leasehold.v1.LeaseService/AcquireLease".
            method: its row in the access table.
            context: gRPC's.
            act: the handler, with the request bound.
            stream: it answers with a stream: bounded by its own age, not by the time of a unary call.
        """
        metadata = _grouped(context)
        known = _Known(_request_id(metadata, self._with.entropy))
        context.set_trailing_metadata(((REQUEST_ID_HEADER, known.request_id),))
        try:
            known.peer = self._peer(context)
            known.peer = self._with.caller_of(known.peer, metadata.get(CLIENT_CERTIFICATE, []))
            self._check_certificate(known.peer)
            _check_metadata(metadata)
            _check_deadline(method, context)
            holder = known.peer.share
            with self._with.calls.held(holder), self._with.streams.held(holder) if stream else nullcontext():
                call = await self._admit(path, method, metadata, known, known.peer)
                self._with.admitted(context.peer())
                if stream:
                    with self._streams_of(path, method).held(
                        f"{call.identity.subject.issuer} {call.identity.subject.subject}"
                    ):
                        return await act(call)
                return await _within(method.seconds_max, act(call))
        except Refusal as refusal:
            await self._refuse(path, context, refusal, known)
        except Exception as fault:  # noqa: BLE001 - the border of the process: no fault's text may leave it
            _log.error("rpc failed", method=path, request_id=known.request_id, **_shape(fault))
            await _abort(context, errors.internal_status(known.request_id), known.request_id)

    async def probe(self, context: ServicerContext, act: Callable[[], Awaitable[Answer]]) -> Answer:
        """Run `act` for a caller that is asked for nothing; bounded per peer, and never an event."""
        transport = context.peer()
        peer = self._with.peer_of(transport)
        try:
            with self._probes.held("" if peer is None else peer.share):
                return await act()
        except Refusal as refusal:
            self._with.refused(transport)
            request_id = _request_id({}, self._with.entropy)
            await _abort(context, errors.rpc_status(refusal, request_id), request_id)

    def _streams_of(self, path: str, method: Method) -> Occupancy:
        """The streams of one method, counted by identity: whoever shares a peer with others has a share of its own."""
        if path not in self._streams:
            self._streams[path] = Occupancy(f"{path.rpartition('/')[2]} streams", method.streams_max, "identity")
        return self._streams[path]

    async def _admit(
        self, path: str, method: Method, metadata: Mapping[str, list[str]], known: _Known, peer: Peer
    ) -> CallContext:
        now = self._with.clock.now()
        shown = read_shown(peer, path, metadata)
        identity = await self._with.authenticate[method.access](shown, now)
        known.identity = identity
        if method.audit is Audit.READ and self._with.read_recorder is not None:
            await self._with.read_recorder.rpc_read(path, identity, peer, known.request_id)
        return CallContext(path, known.request_id, peer, identity, now)

    def _peer(self, context: ServicerContext) -> Peer:
        transport = context.peer()
        peer = self._with.peer_of(transport)
        if peer is None:
            raise Refusal(
                Reason.PEER_MISMATCH, "this connection did not come through the door", detail="unknown transport"
            )
        return peer

    def _check_certificate(self, peer: Peer) -> None:
        asked = Certificates.NONE if peer.transport is Transport.UNIX else self._with.certificates
        lacking = asked is Certificates.NEEDED or (asked is Certificates.NONE and peer.uid is None)
        if lacking and not peer.certificate_sha256:
            raise Refusal(Reason.PEER_MISMATCH, "a client certificate is needed here", detail="no client certificate")

    async def _refuse(self, path: str, context: ServicerContext, refusal: Refusal, known: _Known) -> NoReturn:
        honeytoken = self._with.sprung_by(presented(_grouped(context)))
        if honeytoken is not None:
            refusal = TrapSprung.over(refusal, honeytoken)
        answer = refusal
        self._with.refused(context.peer())
        try:
            await self._with.recorder.rpc_refused(path, refusal, known.identity, known.peer, known.request_id)
        except Refusal as unrecorded:
            answer = unrecorded
        except Exception as fault:  # noqa: BLE001 - as above; without its event, the refusal is answered as our fault
            _log.error("refusal not recorded", method=path, request_id=known.request_id, **_shape(fault))
            await _abort(context, errors.internal_status(known.request_id), known.request_id)
        self._lines.tell(path, known.request_id, answer.reason, self._with.clock.now())
        await _abort(context, errors.rpc_status(answer, known.request_id), known.request_id)


async def _within(seconds: float, work: Awaitable[Answer]) -> Answer:
    """Run a unary handler for at most `seconds`; the caller's own deadline is kept by gRPC, which cancels us."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
    raise Refusal(
        Reason.OVERLOADED,
        f"this call took longer than {seconds:g} s; try again with the same request_id",
        retry_after_seconds=OVERTIME_RETRY_SECONDS,
    )


async def _abort(context: ServicerContext, status: RpcStatus, request_id: str) -> NoReturn:
    trailers = ((errors.STATUS_TRAILER, status.SerializeToString()), (REQUEST_ID_HEADER, request_id))
    await context.abort(_CODES[status.code], status.message, trailers)
    raise AssertionError("abort returned")


def _grouped(context: ServicerContext) -> dict[str, list[str]]:
    """Text metadata by key. Binary metadata is not used by us."""
    grouped: dict[str, list[str]] = {}
    for key, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            grouped.setdefault(key, []).append(value)
    return grouped


def _request_id(metadata: Mapping[str, list[str]], entropy: Entropy) -> str:
    """The caller's own id when it is one canonical UUID; else a new one. A label: nothing is decided by it."""
    stated = metadata.get(REQUEST_ID_HEADER, [])
    if len(stated) == 1 and UUID.fullmatch(stated[0]):
        return stated[0]
    return str(uuid.UUID(bytes=entropy.bytes(16), version=4))


def _check_metadata(metadata: Mapping[str, list[str]]) -> None:
    if metadata.get(REQUIRED_KEY) != [REQUIRED_VALUE]:
        raise Refusal(
            Reason.METADATA_MISSING,
            f'every call must carry metadata "{REQUIRED_KEY}: {REQUIRED_VALUE}", once; add it to the call',
        )


def _check_deadline(method: Method, context: ServicerContext) -> None:
    if method.deadline is Deadline.REQUIRED and context.time_remaining() is None:
        raise Refusal(Reason.DEADLINE_MISSING, "this call must state a deadline; set a timeout")


def _shape(fault: BaseException) -> dict[str, Any]:
    """Type and place of a fault. Never its text, which may quote a request or a secret."""
    frames = traceback.extract_tb(fault.__traceback__)[-8:]
    return {
        "fault": type(fault).__name__,
        "frames": [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}:{frame.name}" for frame in frames],
    }
