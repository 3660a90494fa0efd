"""Sessions of operators in a browser. Owns their life: how long, how many, and what ends them; told time and entropy.

They are kept in memory alone and by the digest of their id: whoever reads this memory's copy on a disk cannot use one,
and a restart ends all of them.
"""

import base64
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import NANOS, Instant

SESSIONS_MAX = 1000
SESSIONS_OF_ONE_MAX = 8
ID_BYTES = 32
NEAR_SECONDS = 30
CHECK_SECONDS_MIN = 5
"""An identity that has less than the first left is renewed, but not more often than the second."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a session lives.

    Args:
        idle_seconds: without a request.
        age_seconds: in all.
        check_seconds: after which the issuer is asked again, where it offers a way.
    """

    idle_seconds: int = 900
    age_seconds: int = 8 * 3600
    check_seconds: int = 300


class SessionEnd(StrEnum):
    """Why a session ended."""

    ASKED = "asked"
    IDLE = "idle"
    AGE = "age"
    IDENTITY_OVER = "identity_over"
    ISSUER_REFUSED = "issuer_refused"
    NO_ROLE = "no_role"
    REPLACED = "replaced"
    NOT_RECORDED = "not_recorded"


@dataclass(slots=True)
class ConsoleSession:
    """One session.

    Args:
        identity: verified at sign-in, or at the last check.
        csrf: what a form of this session must hold.
        refresh: gets a new identity from the issuer; None where it offers no way.
        begun_ns, used_ns, checked_ns: boot clock.
        checking: somebody asks the issuer right now.
        end: why it is over; None while it lives.
    """

    identity: Identity
    csrf: str = field(repr=False)
    refresh: Secret | None
    begun_ns: int
    used_ns: int
    checked_ns: int
    checking: bool = False
    end: SessionEnd | None = None

    def lives(self) -> bool:
        """It has not ended."""
        return self.end is None


class ConsoleSessions:
    """All of them."""

    def __init__(self, limits: SessionLimits) -> None:
        """None yet."""
        self.limits = limits
        self._by_digest: dict[bytes, ConsoleSession] = {}

    def __len__(self) -> int:
        """How many live, as far as anybody has looked."""
        return len(self._by_digest)

    def make_room(self, subject: Subject, now: Instant) -> list[ConsoleSession]:
        """End what is over, and the person's oldest when they have too many; gives those that ended."""
        ended = self.sweep(now)
        own = [
            (session.used_ns, digest)
            for digest, session in self._by_digest.items()
            if session.identity.subject.same_as(subject)
        ]
        return [*ended, self._drop(min(own)[1], SessionEnd.REPLACED)] if len(own) >= SESSIONS_OF_ONE_MAX else ended

    def open(
        self, identity: Identity, refresh: Secret | None, now: Instant, entropy: bytes
    ) -> tuple[str, ConsoleSession]:
        """A new session and its id, which is a secret.

        Args:
            identity: verified.
            refresh: as in the session.
            now: present.
            entropy: 2 * ID_BYTES fresh bytes.

        Raises:
            Refusal: OVERLOADED.
        """
        if len(self._by_digest) >= SESSIONS_MAX:
            raise Refusal(Reason.OVERLOADED, "too many people are signed in; try again later", retry_after_seconds=60)
        identifier, csrf = (_text(entropy[:ID_BYTES]), _text(entropy[ID_BYTES:]))
        session = ConsoleSession(identity, csrf, refresh, now.boot_ns, now.boot_ns, now.boot_ns)
        self._by_digest[_digest(identifier)] = session
        return identifier, session

    def find(self, identifier: str, now: Instant) -> ConsoleSession | None:
        """The session of an id, also one that has just ended (see its `end`); None when there is none."""
        digest = _digest(identifier)
        session = self._by_digest.get(digest)
        if session is not None:
            session.end = self._over(session, now)
            if session.end is not None:
                del self._by_digest[digest]
        return session

    def end(self, identifier: str, why: SessionEnd) -> ConsoleSession | None:
        """End the session of an id; None when there is none."""
        digest = _digest(identifier)
        return self._drop(digest, why) if digest in self._by_digest else None

    def check_due(self, session: ConsoleSession, now: Instant) -> bool:
        """The issuer should be asked again, and nobody does yet."""
        if session.refresh is None or session.checking:
            return False
        since = (now.boot_ns - session.checked_ns) / NANOS
        near = session.identity.expires_wall_ms - now.wall_ms < NEAR_SECONDS * 1000 and since >= CHECK_SECONDS_MIN
        return since >= self.limits.check_seconds or near or is_over(session.identity, now)

    def sweep(self, now: Instant) -> list[ConsoleSession]:
        """End what is over; gives those that ended."""
        over = [(digest, why) for digest, each in self._by_digest.items() if (why := self._over(each, now)) is not None]
        return [self._drop(digest, why) for digest, why in over]

    def _drop(self, digest: bytes, why: SessionEnd) -> ConsoleSession:
        session = self._by_digest.pop(digest)
        session.end = why
        return session

    def _over(self, session: ConsoleSession, now: Instant) -> SessionEnd | None:
        if session.end is not None:
            return session.end
        if (now.boot_ns - session.used_ns) / NANOS >= self.limits.idle_seconds:
            return SessionEnd.IDLE
        if (now.boot_ns - session.begun_ns) / NANOS >= self.limits.age_seconds:
            return SessionEnd.AGE
        if session.refresh is None and is_over(session.identity, now):
            return SessionEnd.IDENTITY_OVER
        return None


def is_over(identity: Identity, now: Instant) -> bool:
    """The identity has ended, whatever becomes of the session."""
    return now.wall_ms >= identity.expires_wall_ms


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _digest(identifier: str) -> bytes:
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).digest()
