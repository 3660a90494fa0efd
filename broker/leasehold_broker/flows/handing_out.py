"""Credentials that leave the sidecar: minted tokens, and stored keys where the policy names them.

Owns what is fetched before such a lease is made and what is written down with it. A stored key that was handed out is
marked as exposed, durably, in the transaction that makes the lease; its rotation is requested when the lease ends. A
credential of a secret engine is minted for its lease and revoked with it.
"""

from dataclasses import dataclass

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.keys import KeyKind, KeyMark, KeyMarkKind
from leasehold_broker.domain.lease import Lease, Mode
from leasehold_broker.domain.policy import Terms
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.dynamic_keys import DynamicKeys
from leasehold_broker.flows.engine_leases import Held
from leasehold_broker.flows.journal import Batch
from leasehold_broker.ports.key_minter import KeyMinter
from leasehold_broker.ports.key_store import KeyStore


@dataclass(frozen=True, slots=True)
class Credential:
    """What is handed out.

    Args:
        secret: the token, or the key.
        life_seconds: of a token; None for a stored key, which lives on, and for what is renewed with its lease.
        key, version: which key.
        held: a secret engine made it; by this it is claimed or given up.
    """

    secret: Secret
    life_seconds: int | None
    key: str
    version: int
    held: Held | None = None


class HandingOut:
    """Fetches credentials for leases that are about to be made."""

    def __init__(self, books: Books, keys: KeyStore, minter: KeyMinter, dynamic: DynamicKeys) -> None:
        """Fetch from these."""
        self._books = books
        self._keys = keys
        self._minter = minter
        self._dynamic = dynamic

    async def fetch(self, terms: Terms, holder: Subject) -> Credential | None:
        """The credential for a lease of this holder under these terms; None in mode brokered.

        Raises:
            Refusal: KEY_UNAVAILABLE, KEY_DISABLED, DISCLOSURE_NOT_ALLOWED.
        """
        if terms.mode is Mode.BROKERED:
            return None
        scope = terms.scopes[0]
        record = self._keys.find(scope.key)
        if record is None:
            raise Refusal(Reason.KEY_UNAVAILABLE, f"key {scope.key!r} cannot be had now; try again")
        if terms.mode is Mode.DISCLOSED:
            return Credential(await self._keys.secret(scope.key), None, scope.key, record.version)
        if record.kind is KeyKind.DYNAMIC:
            handed = await self._dynamic.mint(scope.key, terms.grant.minted_seconds_max)
            return Credential(handed.secret, handed.life_seconds, scope.key, record.version, handed.held)
        minted = await self._minter.mint(scope.key, scope.models, terms.grant.minted_seconds_max, holder)
        return Credential(minted.token, minted.life_seconds, scope.key, record.version)

    def recorded(self, credential: Credential | None, lease: Lease, request_id: str, now: Instant) -> Batch:
        """What is made durable together with the lease."""
        if credential is not None and credential.held is not None:
            return self._dynamic.claim(credential.held, lease, request_id, now)
        if credential is None or lease.mode is not Mode.DISCLOSED:
            return Batch()
        mark = KeyMark(credential.key, credential.version, KeyMarkKind.EXPOSED, now.wall_ms, lease.name)
        details: dict[str, Detail] = {"key": credential.key, "version": credential.version}
        event = Event(
            EventType.KEY_EXPOSED,
            now.wall_ms,
            Outcome.ALLOWED,
            subject=lease.subject,
            lease=lease.name,
            request_id=request_id,
            details=details,
        )
        return Batch([event], [self._books.put_key_mark(mark)])

    def given_up(self, credential: Credential | None) -> None:
        """No lease was made with it: what an engine made is revoked."""
        if credential is not None and credential.held is not None:
            self._dynamic.give_up(credential.held)

    def taken_back(self, lease: str) -> None:
        """The lease never became durable, so nothing was handed out."""
        self._books.exposures.pop(lease, None)
        self._books.engine_leases.pop(lease, None)
