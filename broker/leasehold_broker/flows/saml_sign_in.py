"""Operators sign in by SAML. Owns the question, what may be shown once only, and whether somebody has a role at all.

Only what was asked for is taken: a response to no question of this browser is refused (no IdP-initiated sign-in).
"""

from collections.abc import Callable

from leasehold_broker.domain.console_sessions import ConsoleSession
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.replay import NOBODY, Showings
from leasehold_broker.domain.saml import SamlRule, identity_of
from leasehold_broker.flows.console_sign_in import ConsoleSignIn
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.saml_provider import SamlProvider

ID_BYTES = 20
QUESTION_SECONDS = 600


class SamlSignIn:
    """One provider."""

    def __init__(
        self,
        provider: SamlProvider,
        rule: SamlRule,
        check_role: Callable[[Identity], None],
        sign_in: ConsoleSignIn,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        """Believe `provider` by `rule`; `check_role` raises OPERATOR_NOT_ALLOWED for whoever has no role."""
        self._provider = provider
        self._rule = rule
        self._check_role = check_role
        self._sign_in = sign_in
        self._clock = clock
        self._entropy = entropy
        self._showings = Showings("saml")

    def ask(self) -> tuple[str, str, str]:
        """A fresh relay state and request id, both for the browser to keep, and the address that asks."""
        relay_state, request_id = (self._entropy.bytes(ID_BYTES).hex() for _ in range(2))
        request_id = f"_{request_id}"
        return relay_state, request_id, self._provider.address(request_id, relay_state, self._clock.now().wall_ms)

    async def answer(
        self, unverified_response: str, request_id: str, peer: Peer, replaced: str
    ) -> tuple[str, ConsoleSession]:
        """Sign in with a response to a question of this browser; gives the id of the new session.

        Raises:
            Refusal: an identity reason, REPLAY_DETECTED, OPERATOR_NOT_ALLOWED, and as `ConsoleSignIn.admit`.
        """
        said = self._provider.read(unverified_response)
        now = self._clock.now()
        identity, left = identity_of(self._rule, said, request_id, now)
        # In memory: a restart ends every question, and without its question an assertion is of no use.
        self._showings.claim("assertion", said.assertion_id, NOBODY, left, now)
        self._showings.claim("question", request_id, NOBODY, QUESTION_SECONDS, now)
        self._check_role(identity)
        return await self._sign_in.admit(identity, None, "saml", peer, replaced)

    def metadata(self) -> bytes:
        """Us, as XML."""
        return self._provider.metadata()
