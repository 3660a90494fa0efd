"""Carries token exchanges over the HTTP client of the egress: its checks of addresses, TLS, redirects and bounds.

Also where workload tokens are read from: files, anew each time, as others replace them.
"""

from pathlib import Path

from leasehold_broker.adapters.whole_answer import NoAnswer, whole_answer
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
from leasehold_broker.ports.upstream import Upstream

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
        bearer = ask.bearer

        def key_header() -> tuple[str, bytes]:
            # The client writes one header apart from the others: the bearer token, or else one that is needed anyway.
            return ("cache-control", b"no-store") if bearer is None else ("authorization", b"Bearer " + bearer.reveal())

        request = UpstreamRequest("POST", ask.path, ask.headers, ask.body)
        try:
            answer = await whole_answer(
                self._upstream,
                ask.origin,
                request,
                key_header,
                seconds_max=ASK_SECONDS_MAX,
                bytes_max=ANSWER_BYTES_MAX,
            )
        except NoAnswer as none:
            raise ExchangeFault(ExchangeState.UNREACHABLE, f"{ask.origin} {none}") from None
        return TokenAnswer(answer.status, answer.headers, answer.body)


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
