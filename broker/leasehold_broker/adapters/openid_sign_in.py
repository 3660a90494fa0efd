"""An OpenID provider, asked with the client's own sign-in library. That blocks, so it runs in a few own threads.

Owns turning that library's refusals into ours. Which tokens are good, the identity verifier says.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from leasehold.errors import LeaseholdError, Unavailable
from leasehold.signin.code_flow import Question, redeem
from leasehold.signin.issuer import Client, Issuer, discover
from leasehold.signin.renewing import end, renewal, renewed
from leasehold.signin.tokens import Tokens
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.openid_provider import SignInAnswer, SignInQuestion

THREADS_MAX = 4
WAITING_MAX = 32
"""Sign-ins that wait for a thread; each takes at most a minute."""

DISCOVERED_SECONDS = 300.0
"""The provider's configuration is read anew after this: whoever only opens the first page costs it nothing."""

T = TypeVar("T")


class OpenIdSignIn:
    """One client at one provider."""

    def __init__(
        self, issuer: str, client_id: str, scopes: tuple[str, ...], secret: Callable[[], str], redirect_uri: str
    ) -> None:
        """Nothing is asked yet.

        Args:
            issuer: as it names itself.
            client_id: as registered there.
            scopes: asked for; "openid" among them.
            secret: reads the client's secret; "" for a public client.
            redirect_uri: where answers come.
        """
        self._issuer, self._client_id, self._scopes = issuer, client_id, scopes
        self._secret = secret
        self._redirect_uri = redirect_uri
        self._threads = ThreadPoolExecutor(THREADS_MAX, "openid-sign-in")
        self._waiting = 0
        self._discovered: tuple[float, Issuer] | None = None

    def close(self) -> None:
        """Begin nothing more; what is under way ends by its own bounds."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ask(self) -> tuple[SignInQuestion, str]:
        """See the port."""

        def work(client: Client) -> tuple[SignInQuestion, str]:
            question = Question.fresh(self._redirect_uri)
            kept = SignInQuestion(question.state, question.nonce, question.verifier)
            return kept, question.address(self._provider(), client)

        return await self._run(work)

    async def redeem(self, question: SignInQuestion, answer: Mapping[str, str]) -> SignInAnswer:
        """See the port."""
        asked = Question(self._redirect_uri, question.state, question.nonce, question.verifier)
        return await self._run(lambda client: _answer(redeem(self._provider(), client, asked, answer)))

    async def renew(self, subject: str, refresh: Secret) -> SignInAnswer:
        """See the port."""

        def work(client: Client) -> SignInAnswer:
            before = Tokens("", refresh.reveal().decode("ascii"), subject, 0)
            return _answer(renewed(renewal(client, before), client, before, int(time.time())))

        return await self._run(work)

    async def end(self, refresh: Secret) -> None:
        """See the port."""

        def work(client: Client) -> None:
            end(self._provider(), client, Tokens("", refresh.reveal().decode("ascii"), "", 0))

        try:
            await self._run(work)
        except Refusal:
            return

    def _provider(self) -> Issuer:
        """In a thread; two that find it old both read it."""
        known, now = self._discovered, time.monotonic()
        if known is None or now - known[0] >= DISCOVERED_SECONDS:
            known = self._discovered = (now, discover(self._issuer))
        return known[1]

    async def _run(self, work: Callable[[Client], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise Refusal(Reason.OVERLOADED, "too many people sign in at once; try again", retry_after_seconds=5)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._guarded, work)
        finally:
            self._waiting -= 1

    def _guarded(self, work: Callable[[Client], T]) -> T:
        try:
            return work(Client(self._issuer, self._client_id, self._scopes, secret=self._secret()))
        except Unavailable as away:
            message = "the identity provider cannot be reached; try again later"
            raise Refusal(Reason.KEYS_OF_ISSUER_UNAVAILABLE, message, detail=away.message) from None
        except LeaseholdError as refused:
            message = "signing in did not work; try again, and if that fails too ask the platform team"
            raise Refusal(Reason.IDENTITY_REJECTED, message, detail=refused.message) from None
        except OSError as error:
            message = "the client's secret cannot be read; ask whoever runs the collector"
            raise Refusal(Reason.KEY_UNAVAILABLE, message, detail=error.strerror or "unreadable") from None


def _answer(tokens: Tokens) -> SignInAnswer:
    return SignInAnswer(tokens.bearer, Secret(tokens.refresh.encode("ascii")) if tokens.refresh else None)
