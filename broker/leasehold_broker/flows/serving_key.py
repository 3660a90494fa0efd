"""Which key serves a call: the lease's own, or a stand-in that the same grant gives, when it cannot.

Owns that a stand-in reaches no further: same provider, same environment, named by the lease's grant as the policy is
now, not revoked since the lease was issued. Scope and budgets are then checked with the stand-in as with any key.
"""

from dataclasses import replace

from leasehold_broker.domain.keys import KeyRecord, KeyState
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import selects
from leasehold_broker.domain.scope import Scope
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.key_health import KeyHealth
from leasehold_broker.ports.policy_source import PolicySource


class ServingKey:
    """Chooses the key of a call."""

    def __init__(self, books: Books, keys: KeyHealth, policies: PolicySource) -> None:
        """Choose among `keys`."""
        self._books = books
        self._keys = keys
        self._policies = policies

    def of(self, lease: Lease, scope: Scope) -> tuple[Scope, KeyRecord | None]:
        """The scope with the key that serves it, and its record; None when asking for its secret will tell why not.

        Raises:
            Refusal: ENVIRONMENT_MISMATCH: the key has come to belong elsewhere since the lease was granted.
        """
        record = self._keys.find(scope.key)
        if record is not None and record.environment != lease.subject.environment:
            raise Refusal(
                Reason.ENVIRONMENT_MISMATCH,
                f"key {scope.key!r} belongs to another environment than this lease; acquire a new lease",
                detail=f"{record.environment!r} is not {lease.subject.environment!r}",
            )
        able = record is not None and record.state is KeyState.ENABLED
        if able and not self._keys.resting(scope.key):
            return scope, record
        stand_in = self._stand_in(lease, scope)
        if stand_in is None:
            return scope, record
        return replace(scope, key=stand_in.name), stand_in

    def _stand_in(self, lease: Lease, scope: Scope) -> KeyRecord | None:
        grant = self._policies.current().grant(lease.grant)
        if grant is None or grant.environment != lease.subject.environment:
            return None
        try:
            records = self._keys.records()
        except Refusal:
            return None
        for record in grant.key_choice.serving(scope.provider, lease.mode, records):
            if record.name != scope.key and not self._keys.resting(record.name) and not self._revoked(lease, record):
                return record
        return None

    def _revoked(self, lease: Lease, record: KeyRecord) -> bool:
        """True when a revocation since the lease was issued would have ended it, had it been of this key."""
        scopes = tuple(replace(one, key=record.name) for one in lease.scopes if one.provider == record.provider)
        as_if = replace(lease, scopes=scopes)
        books = self._books
        if any(entry.kills(as_if, frozenset(), books.sidecar) for entry in reversed(books.revocations)):
            return True
        # Of what is set aside nobody knows any more whether the lease is older: it counts as if.
        return any(selects(entry.selector, as_if, frozenset(), books.sidecar) for entry in books.revocations_set_aside)
