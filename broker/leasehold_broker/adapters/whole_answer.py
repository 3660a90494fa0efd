"""One request, and its answer whole: what asks a server a small question of ours over the client of the egress.

Owns the bounds of time and size. Refuses to show a body: it may hold a token or a key.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leasehold_broker.ports.provider import UpstreamRequest
from leasehold_broker.ports.upstream import KeyHeader, Upstream, UpstreamFailure


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """The status, and no more."""
        return f"Answer({self.status})"


class NoAnswer(Exception):  # noqa: N818 - what the network did, not what we did wrong
    """None came: the request may have had its effect all the same. The message is a part of a sentence."""


async def whole_answer(
    upstream: Upstream,
    origin: str,
    request: UpstreamRequest,
    key_header: KeyHeader,
    *,
    seconds_max: float,
    bytes_max: int,
) -> Answer:
    """Ask, and wait.

    Raises:
        NoAnswer: nothing came in time, no connection, or more than `bytes_max`.
    """
    collected = _Collected(bytes_max)
    call = upstream.send(origin, request, key_header, collected)
    try:
        async with asyncio.timeout(seconds_max):
            return await collected.answer
    except TimeoutError:
        message = f"did not answer within {seconds_max:g} s"
        raise NoAnswer(message) from None
    finally:
        call.abort()


class _Collected:
    """The listener of one answer: keeps it whole, up to a bound."""

    def __init__(self, bytes_max: int) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._bytes_max = bytes_max
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    def answer_started(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """See the port."""
        self._status, self._headers = status, dict(headers)

    def body_received(self, data: bytes) -> None:
        """See the port."""
        if len(self._body) + len(data) > self._bytes_max:
            self.answer_failed(UpstreamFailure.BAD_ANSWER)
            return
        self._body += data

    def answer_finished(self) -> None:
        """See the port."""
        if not self.answer.done():
            self.answer.set_result(Answer(self._status, self._headers, bytes(self._body)))
        self._body[:] = bytes(len(self._body))

    def answer_failed(self, failure: UpstreamFailure) -> None:
        """See the port."""
        if not self.answer.done():
            message = f"cannot be reached ({failure.value})"
            self.answer.set_exception(NoAnswer(message))
