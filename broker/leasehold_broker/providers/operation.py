"""One thing that a host can be asked to do. Owns the shape that hosts and operations share."""

from collections.abc import Callable
from typing import Final, Protocol

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.ports.provider import Form, Json, Meter
from leasehold_broker.providers.headers import JSON_TYPE

Object = dict[str, Json]


class TakesJson:
    """What most operations have in common: JSON goes in, JSON comes out."""

    __slots__ = ()
    file_names: Final = None
    accept: Final = JSON_TYPE


class WithoutLimit:
    """What operations have in common whose answer has no limit to place: what is checked is what is sent."""

    __slots__ = ()

    def sent(self, body: Object, output_tokens_limit: int | None) -> Object:
        """See the protocol."""
        del output_tokens_limit  # there is nothing that it could limit
        return body


class Operation(Protocol):
    """What a request can cost, what is sent for it, and how its answer is read. Pure; the host knows where it is."""

    @property
    def name(self) -> str:
        """As in scopes, e.g. "chat.completions"."""
        ...

    @property
    def file_names(self) -> Callable[[Form], tuple[str, ...]] | None:
        """What the files of a form are called upstream; None: the body is JSON."""
        ...

    @property
    def accept(self) -> str:
        """The type of answer that is asked for, when it is no stream."""
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
