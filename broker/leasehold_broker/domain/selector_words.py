"""Selectors as plain words, for audit events and stores. Owns the names; both directions, strictly."""

from collections.abc import Mapping
from typing import assert_never

from leasehold_broker.domain.events import Detail
from leasehold_broker.domain.revocation import (
    ByEnvironment,
    ByKey,
    ByLease,
    ByProvider,
    BySubject,
    Everything,
    Selector,
)


def to_words(selector: Selector) -> dict[str, Detail]:
    """One member, named by the kind of selector."""
    match selector:
        case ByLease(lease):
            return {"lease": lease}
        case BySubject(issuer, subject):
            return {"subject": {"issuer": issuer, "subject": subject}}
        case ByKey(key):
            return {"key": key}
        case ByProvider(provider):
            return {"provider": provider}
        case ByEnvironment(environment):
            return {"environment": environment}
        case Everything():
            return {"everything": True}
        case _:
            assert_never(selector)


def from_words(words: Mapping[str, object]) -> Selector:
    """The selector that `to_words` made these of.

    Raises:
        ValueError: anything else.
    """
    match dict(words):
        case {"lease": str(lease), **rest} if not rest:
            return ByLease(lease)
        case {"subject": {"issuer": str(issuer), "subject": str(subject)}, **rest} if not rest:
            return BySubject(issuer, subject)
        case {"key": str(key), **rest} if not rest:
            return ByKey(key)
        case {"provider": str(provider), **rest} if not rest:
            return ByProvider(provider)
        case {"environment": str(environment), **rest} if not rest:
            return ByEnvironment(environment)
        case {"everything": True, **rest} if not rest:
            return Everything()
        case _:
            message = f"not a selector: members {sorted(words)}"
            raise ValueError(message)
