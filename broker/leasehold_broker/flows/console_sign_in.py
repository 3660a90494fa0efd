"""Operators sign in with a browser, stay signed in, and sign out. Owns the events of it, and asking the issuer again.

Who somebody is, the identity verifier says; what they may do, the same rules as for the command. An identity that
cannot be had anew ends the session.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from leasehold_broker.domain.console_sessions import ID_BYTES, ConsoleSession, ConsoleSessions, SessionEnd, is_over
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.ports.openid_provider import OpenIdProvider, SignInQuestion

SWEEP_SECONDS = 60.0
_AWAY = frozenset({Reason.KEYS_OF_ISSUER_UNAVAILABLE, Reason.OVERLOADED, Reason.KEY_UNAVAILABLE})

Authenticate = Callable[[str, Peer], Awaitable[Identity]]
"""A verified operator with at least one role, from an ID token. Raises Refusal."""


class ConsoleSignIn:
    """Sessions, and the one provider of OpenID Connect."""

    def __init__(
        self,
        provider: OpenIdProvider | None,
        authenticate: Authenticate,
        sessions: ConsoleSessions,
        events: EventLog,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        """Sign in there (None: by SAML alone), keep it in `sessions`, tell `events`."""
        self._provider = provider
        self._authenticate = authenticate
        self._sessions = sessions
        self._events = events
        self._clock = clock
        self._entropy = entropy

    async def ask(self) -> tuple[SignInQuestion, str]:
        """A question, and the address that puts it.

        Raises:
            Refusal: the provider cannot be asked.
        """
        if self._provider is None:
            raise _no_provider()
        return await self._provider.ask()

    async def answer(
        self, question: SignInQuestion, answer: Mapping[str, str], peer: Peer, replaced: str
    ) -> tuple[str, ConsoleSession]:
        """Sign in with what came back for a question; gives the id of the new session.

        Args:
            question: whose state the answer holds.
            answer: parameters of the redirect.
            peer: the browser's connection.
            replaced: id of the session that this browser has had; it ends. "" for none.

        Raises:
            Refusal: an identity reason, OPERATOR_NOT_ALLOWED, OVERLOADED, STORE_UNAVAILABLE: nobody is signed in.
        """
        if self._provider is None:
            raise _no_provider()
        found = await self._provider.redeem(question, answer)
        identity = await self._authenticate(found.unverified_token, peer)
        return await self.admit(identity, found.refresh, "openid", peer, replaced)

    async def admit(
        self, identity: Identity, refresh: Secret | None, by: str, peer: Peer, replaced: str
    ) -> tuple[str, ConsoleSession]:
        """A session for a verified operator; gives its id.

        Args:
            identity: with a role.
            refresh: renews it at the OpenID provider; None where it ends with itself.
            by: "openid" or "saml".
            peer: as in `answer`.
            replaced: as in `answer`.

        Raises:
            Refusal: OVERLOADED, STORE_UNAVAILABLE: nobody is signed in.
        """
        now = self._clock.now()
        for ended in self._sessions.make_room(identity.subject, now):
            await self._ended(ended)
        if replaced:
            await self.end(replaced, SessionEnd.REPLACED)
        identifier, session = self._sessions.open(identity, refresh, now, self._entropy.bytes(2 * ID_BYTES))
        try:
            await self._record(EventType.OPERATOR_SIGNED_IN, identity, {"by": by, "peer": peer.binding})
        except Refusal:
            self._sessions.end(identifier, SessionEnd.NOT_RECORDED)
            raise
        return identifier, session

    async def find(self, identifier: str, peer: Peer, *, used: bool) -> ConsoleSession | None:
        """The living session of an id, after the issuer was asked again where that is due; None when it is over.

        Args:
            identifier: as the browser shows it.
            peer: the browser's connection.
            used: somebody does something, so it is not idle.

        Raises:
            Refusal: STORE_UNAVAILABLE: that it has ended could not be recorded. It has ended all the same.
        """
        now = self._clock.now()
        session = self._sessions.find(identifier, now)
        if session is None:
            return None
        if not session.lives():
            await self._ended(session)
            return None
        if is_over(session.identity, now) and session.checking:
            raise Refusal(Reason.OVERLOADED, "the identity provider is being asked; try again", retry_after_seconds=1)
        if self._sessions.check_due(session, now):
            await self._check(identifier, session, peer)
            if session.lives() and is_over(session.identity, self._clock.now()):
                await self.end(identifier, SessionEnd.IDENTITY_OVER)
        if not session.lives():
            return None
        if used:
            session.used_ns = now.boot_ns
        return session

    async def run(self) -> None:
        """End sessions that nobody comes back to, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for session in self._sessions.sweep(self._clock.now()):
                await self._ended(session)

    async def end(self, identifier: str, why: SessionEnd) -> None:
        """End a session, here and at the provider; nothing when there is none.

        Raises:
            Refusal: STORE_UNAVAILABLE, as in `find`.
        """
        session = self._sessions.end(identifier, why)
        if session is not None:
            await self._ended(session)

    async def _check(self, identifier: str, session: ConsoleSession, peer: Peer) -> None:
        """Ask the issuer for the identity anew; while that goes on, other requests go by the one that is known."""
        session.checking = True
        try:
            session.identity = await self._renewed(session, peer)
            session.checked_ns = self._clock.now().boot_ns
        except Refusal as refusal:
            if refusal.reason in _AWAY:
                return  # asked again with the next request; the identity has its own end
            no_role = refusal.reason is Reason.OPERATOR_NOT_ALLOWED
            await self.end(identifier, SessionEnd.NO_ROLE if no_role else SessionEnd.ISSUER_REFUSED)
        finally:
            session.checking = False

    async def _renewed(self, session: ConsoleSession, peer: Peer) -> Identity:
        if session.refresh is None or self._provider is None:
            raise _no_provider()
        found = await self._provider.renew(session.identity.subject.subject, session.refresh)
        session.refresh = found.refresh or session.refresh
        identity = await self._authenticate(found.unverified_token, peer)
        if not identity.subject.same_as(session.identity.subject):
            raise Refusal(Reason.IDENTITY_REJECTED, "this is somebody else's session", detail="another subject")
        return identity

    async def _ended(self, session: ConsoleSession) -> None:
        why = "" if session.end is None else session.end.value
        await self._record(EventType.OPERATOR_SIGNED_OUT, session.identity, {"why": why})
        if session.refresh is not None and self._provider is not None and session.end is not SessionEnd.ISSUER_REFUSED:
            await self._provider.end(session.refresh)

    async def _record(self, type_: EventType, identity: Identity, details: dict[str, Detail]) -> None:
        await self._events.record(
            Event(type_, self._clock.now().wall_ms, Outcome.ALLOWED, subject=identity.subject, details=details)
        )


def _no_provider() -> Refusal:
    return Refusal(Reason.IDENTITY_REJECTED, "nobody signs in here that way; see the first page")
