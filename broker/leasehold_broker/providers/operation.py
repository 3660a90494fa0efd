"""One thing that a host can be asked to do. Owns the shape that hosts and operations share."""

from typing import Protocol

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.ports.provider import Json, Meter

Object = dict[str, Json]


class Operation(Protocol):
    """What a request can cost, what is sent for it, and how its answer is read. Pure; the host knows where it is."""

    @property
    def name(self) -> str:
        """As in scopes, e.g. "chat.completions"."""
        ...

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """What the checked request asks for.

        Args:
            provider: name of the host, for the plan.
            model: what is billed; the body may call it otherwise.
            body: as it came.

        Raises:
            Refusal: BODY_INVALID, COST_UNBOUNDED.
        """
        ...

    def sent(self, body: Object, output_tokens_limit: int | None) -> Object:
        """What goes upstream: the limit placed when one is given, and what the meter needs asked for."""
        ...

    def meter(self, body: Object, content_type: str) -> Meter:
        """A fresh meter for the answer to this request."""
        ...
