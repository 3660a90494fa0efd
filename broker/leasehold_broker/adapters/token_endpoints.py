"""Carries token exchanges over the HTTP client of the egress: its checks of addresses, TLS, redirects and bounds.

Also where workload tokens are read from: files, anew each time, as others replace them.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import UpstreamRequest
from leasehold_broker.ports.token_exchange import (
    ANSWER_BYTES_MAX,
    ASSERTION_BYTES_MAX,
    ExchangeFault,
    ExchangeState,
    Exchanging,
    Minted,
    TokenAnswer,
    TokenAsk,
)
from leasehold_broker.ports.upstream import Upstream, UpstreamFailure

ASK_SECONDS_MAX = 10.0


class HttpTokenEndpoints:
    """Implements `TokenEndpoints` over an `Upstream` that knows the origins."""

    def __init__(self, upstream: Upstream) -> None:
        """Ask through `upstream`."""
        self._upstream = upstream

    async def carry(self, exchanging: Exchanging) -> Minted:
        """See the port."""
        try:
            ask = next(exchanging)
            while True:
                ask = exchanging.send(await self._ask(ask))
        except StopIteration as done:
            minted: Minted = done.value
            return minted
        finally:
            exchanging.close()

    async def _ask(self, ask: TokenAsk) -> TokenAnswer:
        collected = _Collected()
        bearer = ask.bearer

        def key_header() -> tuple[str, bytes]:
            # The client writes one header apart from the others: the bearer token, or else one that is needed anyway.
            return ("cache-control", b"no-store") if bearer is None else ("authorization", b"Bearer " + bearer.reveal())

        request = UpstreamRequest("POST", ask.path, ask.headers, ask.body)
        call = self._upstream.send(ask.origin, request, key_header, collected)
        try:
            async with asyncio.timeout(ASK_SECONDS_MAX):
                return await collected.answer
        except TimeoutError:
            message = f"{ask.origin} did not answer within {ASK_SECONDS_MAX:g} s"
            raise ExchangeFault(ExchangeState.UNREACHABLE, message) from None
        except _Failed as failed:
            message = f"{ask.origin} cannot be reached ({failed.failure.value})"
            raise ExchangeFault(ExchangeState.UNREACHABLE, message) from None
        finally:
            call.abort()


class _Failed(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, failure: UpstreamFailure) -> None:
        super().__init__(failure.value)
        self.failure = failure


class _Collected:
    """The listener of one answer: keeps it whole, up to a bound."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[TokenAnswer] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    def answer_started(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """See the port."""
        self._status, self._headers = status, dict(headers)

    def body_received(self, data: bytes) -> None:
        """See the port."""
        self._body += data
        if len(self._body) > ANSWER_BYTES_MAX:
            self.answer_failed(UpstreamFailure.BAD_ANSWER)

    def answer_finished(self) -> None:
        """See the port."""
        if not self.answer.done():
            self.answer.set_result(TokenAnswer(self._status, self._headers, bytes(self._body)))
        self._body[:] = bytes(len(self._body))

    def answer_failed(self, failure: UpstreamFailure) -> None:
        """See the port."""
        if not self.answer.done():
            self.answer.set_exception(_Failed(failure))


class AssertionFiles:
    """Implements `Assertions` over files."""

    def read(self, path: str) -> Secret:
        """See the port."""
        try:
            with Path(path).open("rb") as file:
                data = file.read(ASSERTION_BYTES_MAX + 1).strip()
        except OSError as error:
            message = f"workload token file {path}: {error.strerror}"
            raise ExchangeFault(ExchangeState.NO_ASSERTION, message) from None
        if len(data) > ASSERTION_BYTES_MAX or data.count(b".") != 2:
            message = f"workload token file {path} holds no JWT"
            raise ExchangeFault(ExchangeState.NO_ASSERTION, message)
        try:
            return Secret(data)
        except ValueError:
            message = f"workload token file {path} holds no JWT"
            raise ExchangeFault(ExchangeState.NO_ASSERTION, message) from None
