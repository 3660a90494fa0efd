"""What the pages share: who visits, what they are given, and what a request may be."""

import hmac
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.protobuf.message import Message

from leasehold_broker.domain.collector_rules import Role
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.reasons import Reason, Refusal

FIELD_CHARACTERS_MAX = 1024


class Desk(Protocol):
    """Operators' methods by path, "leasehold.v1.FleetService/ListSidecars"; each leaves the events that it owes."""

    async def call(self, path: str, request: Message, identity: Identity, peer: Peer) -> Any:
        """The answer. Raises Refusal."""
        ...

    def watch(self, path: str, request: Message, identity: Identity, peer: Peer) -> AsyncGenerator[Any]:
        """The answers. Raises Refusal."""
        ...


class Recorder(Protocol):
    """Writes the events of refusals."""

    async def rpc_refused(
        self, method: str, refusal: Refusal, identity: Identity | None, peer: Peer | None, request_id: str
    ) -> None:
        """Make it durable. Raises Refusal."""
        ...


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who is signed in.

    Args:
        identity: verified.
        roles: theirs. For what a page offers; what is allowed, the methods say.
        peer: the browser's connection.
        csrf: what their forms must hold.
        alive: False once the session has ended.
    """

    identity: Identity
    roles: frozenset[Role]
    peer: Peer
    csrf: str = field(repr=False)
    alive: Callable[[], Any] = field(repr=False)

    @property
    def name(self) -> str:
        """As they are shown to themselves."""
        return self.identity.subject.subject

    def matches(self, csrf: str) -> bool:
        """It is the token of this session's forms."""
        return hmac.compare_digest(csrf.encode("utf-8", "surrogatepass"), self.csrf.encode())

    def has(self, *roles: Role) -> bool:
        """One of these roles is theirs."""
        return bool(self.roles & set(roles))


class SignedOutError(Exception):
    """Nobody is signed in, or no longer."""


class Form:
    """The fields of a form, each there once at most."""

    def __init__(self, pairs: list[tuple[str, str]], characters_max: int = FIELD_CHARACTERS_MAX) -> None:
        """Take them; none may be longer than that.

        Raises:
            Refusal: FIELD_INVALID: one is there twice, or too long.
        """
        self._fields = dict(pairs)
        if len(self._fields) != len(pairs):
            raise Refusal(Reason.FIELD_INVALID, "a field was sent twice; reload the page")
        for name, value in pairs:
            if len(value) > characters_max:
                message = f"{name[:32]} must be at most {characters_max} characters"
                raise Refusal(Reason.FIELD_INVALID, message)

    def text(self, name: str) -> str:
        """A field without space around it; "" when it is not there."""
        return self._fields.get(name, "").strip()

    def ticked(self, name: str) -> bool:
        """A box."""
        return name in self._fields

    def count(self, name: str, most: int = 10**12) -> int:
        """A whole number.

        Raises:
            Refusal: FIELD_INVALID.
        """
        text = self.text(name)
        if not (text.isascii() and text.isdigit() and int(text) <= most):
            message = f"{name} must be a whole number from 0 to {most}"
            raise Refusal(Reason.FIELD_INVALID, message)
        return int(text)
