"""The port to the policy in force."""

from typing import Protocol

from leasehold_broker.domain.identity import Identity
from leasehold_broker.domain.policy import LeaseRequest, Policy, Terms


class PolicySource(Protocol):
    """The last good policy. Reloading happens behind it and never makes a caller wait."""

    def current(self) -> Policy:
        """The policy in force."""
        ...

    def forbidden_by(self, identity: Identity, request: LeaseRequest, terms: Terms) -> tuple[str, ...]:
        """Names of the conditions (Cedar policies) that forbid these terms; empty when none does.

        A condition that fails to evaluate forbids, by the name "error".
        """
        ...
