"""What the two streams share: how halves of a stream run together, and what its end means. Opens nothing."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from leasehold.v1 import rpc_errors_pb2
from leasehold_broker.domain.reasons import Reason

OPERATOR_REASONS = frozenset(
    {
        Reason.AUDIT_CHAIN_BROKEN,
        Reason.AUDIT_EPOCH_FENCED,
        Reason.CENTRE_BEHIND,
        Reason.SESSION_SUPERSEDED,
        Reason.SIDECAR_BANNED,
        Reason.BODY_INVALID,
        Reason.FIELD_INVALID,
    }
)
"""Only an operator can change what these say: asking again soon helps nobody."""

_NAMES = frozenset(reason.value for reason in Reason)

WRITE_FAILURES = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError)
"""What a write raises once the call has ended; the reading half then says why."""


class LinkBrokenError(Exception):
    """The other side does not keep to the contract, or is silent. The channel is thrown away."""

    failure = "LINK_BROKEN"
    """What it is counted as."""


class UnansweredError(LinkBrokenError):
    """The other side talks and does not hear: what it says is no answer to what was said here."""

    failure = "HEARTBEATS_UNANSWERED"


async def together(receiver: Coroutine[None, None, None], *helpers: Coroutine[None, None, None]) -> None:
    """Run until `receiver` returns or anything raises; a helper may end earlier. All are over on return.

    A reading that is given up cancels its call, and gRPC then raises a cancellation out of a writing, though nobody
    has cancelled us: taken for ours, it would end whoever keeps the stream up, without a word. What `receiver` raises
    counts.

    Raises:
        LinkBrokenError: the call was cancelled under `receiver`; and what any of them raises.
    """
    main = asyncio.create_task(receiver)
    tasks = [main, *(asyncio.create_task(helper) for helper in helpers)]
    done: set[asyncio.Task[None]] = set()
    waiting = set(tasks)
    try:
        while not main.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {main}:
                if not (main.done() or task.cancelled()):
                    task.result()
        if main.cancelled():
            message = "the call was cancelled here"
            raise LinkBrokenError(message)
        main.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What was raised names this frame, and must not be named by it: such a circle would keep the call, and with it
        # the connection of a channel that was closed, until garbage is collected, which an idle process does rarely.
        del main, tasks, task, done, waiting


def understood(answer: Any) -> Any:
    """The answer; gRPC gives None for bytes that are no message.

    Raises:
        LinkBrokenError: it is none.
    """
    if answer is None:
        message = "the collector sent bytes that are no message of this contract"
        raise LinkBrokenError(message)
    return answer


def reason_of(error: grpc.aio.AioRpcError) -> Reason | None:
    """The reason in an error's google.rpc.ErrorInfo; None when it has none that this build knows, or can read."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                name = _reason_name(value)
            except DecodeError:  # whoever is between may have written it
                name = ""
            return Reason(name) if name in _NAMES else None
    return None


def _reason_name(details: bytes) -> str:
    for detail in rpc_errors_pb2.RpcStatus.FromString(details).details:
        if detail.type_url.endswith("google.rpc.ErrorInfo"):
            return rpc_errors_pb2.ErrorInfo.FromString(detail.value).reason
    return ""
