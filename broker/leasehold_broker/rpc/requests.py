"""The one request message of a call. Owns the wait for it, its bound in time, and the reading of its bytes.

gRPC's own unary handlers begin when the message is there: streams that are opened and never used would fill the server
before any of our checks has seen them. So every handler begins with the headers, and the message is waited for here.
"""

import asyncio
from collections.abc import AsyncIterator

from google.protobuf.message import DecodeError, Message

from leasehold_broker.domain.reasons import Reason, Refusal

REQUEST_SECONDS_MAX = 10.0


async def one_request(messages: AsyncIterator[bytes], kind: type[Message]) -> Message:
    """The message, once it has come.

    Args:
        messages: of the call, as bytes; only the first is read.
        kind: what it must be.

    Raises:
        Refusal: FIELD_INVALID when none came in time, none came at all, or it is none of this kind.
    """
    try:
        async with asyncio.timeout(REQUEST_SECONDS_MAX) as limit:
            data = await anext(aiter(messages))
    except StopAsyncIteration:
        raise Refusal(Reason.FIELD_INVALID, "the call ended without a request message; send one") from None
    except TimeoutError:
        if not limit.expired():
            raise
        message = f"no request message came within {REQUEST_SECONDS_MAX:g} s; send it with the call"
        raise Refusal(Reason.FIELD_INVALID, message) from None
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Refusal(Reason.FIELD_INVALID, f"the request is no {kind.DESCRIPTOR.name}; check the client") from None
