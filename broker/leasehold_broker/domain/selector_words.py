"""Selectors and orders as plain words, for audit events and stores. Owns the names; both directions, strictly."""

from collections.abc import Mapping
from typing import assert_never

from leasehold_broker.domain.events import Detail
from leasehold_broker.domain.revocation import (
    ByEnvironment,
    ByKey,
    ByLabel,
    ByLease,
    ByProvider,
    BySidecar,
    BySubject,
    Cause,
    Everything,
    Order,
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
        case ByLabel(name, value):
            return {"label": {"name": name, "value": value}}
        case BySidecar(sidecar):
            return {"sidecar": sidecar}
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
        case {"label": {"name": str(name), "value": str(value)}, **rest} if not rest:
            return ByLabel(name, value)
        case {"sidecar": str(sidecar), **rest} if not rest:
            return BySidecar(sidecar)
        case {"everything": True, **rest} if not rest:
            return Everything()
        case _:
            message = f"not a selector: members {sorted(words)}"
            raise ValueError(message)


def order_to_words(order: Order) -> dict[str, Detail]:
    """What differs from a plain revocation; empty for one."""
    words: dict[str, Detail] = {}
    if order.cause is not Cause.UNSTATED:
        words["cause"] = order.cause.value
    if order.block_new:
        words["block_new"] = True
        words["block_seconds"] = order.block_seconds
    if order.lifts:
        words["lifts"] = order.lifts
    return words


def order_from_words(words: Mapping[str, object]) -> Order:
    """The order that `order_to_words` made these of.

    Raises:
        ValueError: anything else.
    """
    match {"cause": "", "block_new": False, "block_seconds": 0, "lifts": 0, **words}:
        case {
            "cause": str(cause),
            "block_new": bool(block_new),
            "block_seconds": int(block_seconds),
            "lifts": int(lifts),
            **rest,
        } if not rest:
            return Order(Cause(cause), block_new, block_seconds, lifts)
        case _:
            message = f"not an order: members {sorted(words)}"
            raise ValueError(message)
