"""Who may have a key rotated: operators by role, pipelines by the claims of their own token. Deny by default."""

from collections.abc import Sequence

from leasehold_broker.collector.access import Operators
from leasehold_broker.domain.collector_rules import PipelineRule, Role
from leasehold_broker.domain.identity import Identity
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.rotation import Trigger
from leasehold_broker.domain.time import Instant
from leasehold_broker.ports.identity_verifier import IdentityVerifier
from leasehold_broker.rpc.caller import Shown

MAY_ROTATE = (Role.CUSTODIAN, Role.RESPONDER)


class Rotators:
    """Authenticates whoever asks for rotations, and knows for which keys."""

    def __init__(
        self, operators: Operators, verifier: IdentityVerifier | None, pipelines: Sequence[PipelineRule]
    ) -> None:
        """Operators as `operators` knows them; pipelines by these rules, their tokens verified by `verifier`."""
        self._operators = operators
        self._verifier = verifier
        self._pipelines = tuple(pipelines)

    async def authenticate(self, shown: Shown, now: Instant) -> Identity:
        """A verified operator or pipeline.

        Raises:
            Refusal: an identity reason, or OPERATOR_NOT_ALLOWED.
        """
        if shown.unverified_token is None or self._verifier is None or not self._pipelines:
            return await self._operators.authenticate(shown, now)
        identity = await self._verifier.verify(shown.unverified_token, shown.peer, now, shown.unverified_proof)
        if self._rules_of(identity) or self._operators.roles_of(identity):
            return identity
        raise Refusal(
            Reason.OPERATOR_NOT_ALLOWED,
            "this token is of no operator and fits no [[pipelines]] rule; ask whoever runs the collector",
            detail=f"{identity.subject.subject!r} of {identity.subject.issuer!r}",
        )

    def trigger_of(self, identity: Identity, key: str) -> Trigger:
        """Go on when this caller may have this key rotated; says as what.

        Raises:
            Refusal: OPERATOR_NOT_ALLOWED.
        """
        if self._operators.roles_of(identity) & set(MAY_ROTATE):
            return Trigger.OPERATOR
        if any(key in rule.keys for rule in self._rules_of(identity)):
            return Trigger.PIPELINE
        raise Refusal(
            Reason.OPERATOR_NOT_ALLOWED,
            "this caller may not have that key rotated; its role or its [[pipelines]] rule does not say so",
            detail=f"{identity.subject.subject!r} of {identity.subject.issuer!r} for key {key!r}"[:500],
        )

    def require_look(self, identity: Identity, key: str) -> None:
        """Go on when this caller may see rotations of this key ("": of all).

        Raises:
            Refusal: OPERATOR_NOT_ALLOWED.
        """
        if self._operators.roles_of(identity) & {*MAY_ROTATE, Role.AUDITOR}:
            return
        if not key:
            raise Refusal(
                Reason.OPERATOR_NOT_ALLOWED,
                "this caller may not see the rotations of all keys; name one that its [[pipelines]] rule has",
            )
        self.trigger_of(identity, key)

    def _rules_of(self, identity: Identity) -> list[PipelineRule]:
        return [
            rule
            for rule in self._pipelines
            if rule.issuer == identity.subject.issuer
            and all(identity.claims.get(claim) == value for claim, value in rule.claims)
        ]
