"""The port to one vendor's wire format. Implementations are pure: bytes and values in, values out."""

from collections.abc import Mapping
from typing import Protocol

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.price import ModelPrice, Usage
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.values import value

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@value
class FormFile:
    """One file of a form. What the caller called it, and what it said of its type, are dropped: neither is checked."""

    field: str
    data: bytes


class Form(dict[str, Json]):
    """A body of multipart/form-data (RFC 7578): its text fields as an object, and its files beside them.

    A field that was sent more than once, or whose name ends in "[]", is a list of texts.
    """

    def __init__(self, fields: Mapping[str, Json], files: tuple[FormFile, ...]) -> None:
        """Args: fields: texts, or lists of them; files: in the order in which they came."""
        super().__init__(fields)
        self.files = files


@value
class Route:
    """A listed route that a request has matched.

    Args:
        operation: the name used in scopes, e.g. "messages", "chat.completions", "generate_content".
        method: "GET" or "POST".
        path_model: model taken from the path, already decoded and checked against the vendor's alphabet; None when
            the body names it or the route has none.
        upstream_path: built from the table, never copied from the caller; with query.
        takes_body: True when a body is required: JSON, or a form.
        form: that body is a form.
    """

    operation: str
    method: str
    path_model: str | None
    upstream_path: str
    takes_body: bool
    form: bool = False


@value
class UpstreamRequest:
    """What is sent to the vendor, all but the key: every byte is ours, built from checked values."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@value
class ToldLimit:
    """What a provider's error says of the key it was asked with.

    Args:
        wait_seconds: to ask again after this; None when it does not say.
        exhausted: its account has no money or quota left: waiting a little does not help.
        refused: the key itself is no good, under a status that says something else at other providers.
    """

    wait_seconds: float | None
    exhausted: bool
    refused: bool = False


class Meter(Protocol):
    """Reads usage out of one answer, incrementally. Never buffers more than its bound."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the answer's body; returns the bytes to relay (some events may be hidden)."""
        ...

    def finish(self) -> bytes:
        """The body has ended; returns what is left to relay."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The last usage the provider reported, merged by its rules; None when none came."""
        ...

    @property
    def final(self) -> bool:
        """True when `usage` is the provider's last word for this call."""
        ...

    @property
    def at_event_boundary(self) -> bool:
        """True when everything relayed so far ends with a whole event (streams)."""
        ...


class Provider(Protocol):
    """One vendor: its routes, key placement, worst case, usage and errors."""

    @property
    def name(self) -> str:
        """Name of the provider, as in scopes: "anthropic", "openai", "gemini"."""
        ...

    @property
    def default_origin(self) -> str:
        """Scheme and host of the vendor's public API, e.g. "https://api.anthropic.com"."""
        ...

    @property
    def sdk_path(self) -> str:
        """What the SDK's base URL ends in below our provider prefix: "" or "/v1"."""
        ...

    @property
    def probe_path(self) -> str:
        """Where a GET tells whether a key is good, when the list of models is shown to everybody; "" else."""
        ...

    def route(self, method: str, path: str, query: str) -> Route:
        """The listed route for the caller's method, path (below our provider prefix, undecoded) and query.

        Raises:
            Refusal: ROUTE_NOT_ALLOWED.
        """
        ...

    def credential(self, headers: Mapping[str, str], query: str) -> str | None:
        """The caller's own credential (the lease token), from wherever this vendor's SDKs put it; None when absent.

        Args:
            headers: lower-case names; each at most once.
            query: undecoded.

        Raises:
            Refusal: HEADER_NOT_ALLOWED when two different credentials are sent.
        """
        ...

    def plan(self, route: Route, headers: Mapping[str, str], body: dict[str, Json] | None, body_bytes: int) -> CallPlan:
        """What the checked request asks for.

        Raises:
            Refusal: BODY_INVALID, COST_UNBOUNDED (a part whose cost has no bound), HEADER_NOT_ALLOWED.
        """
        ...

    def request(
        self,
        route: Route,
        headers: Mapping[str, str],
        body: dict[str, Json] | None,
        output_tokens_limit: int | None,
        kind: KeyKind = KeyKind.STORED,
    ) -> UpstreamRequest:
        """The request to send, all but the key, which is of this kind.

        Takes over allow-listed headers only; places the limit when one is given.
        """
        ...

    def key_header(self, key: Secret, kind: KeyKind = KeyKind.STORED) -> tuple[str, bytes]:
        """Name and value of the one header that carries the key, by where it is from.

        One of the few callers of `Secret.reveal`.
        """
        ...

    def meter(self, route: Route, plan: CallPlan, body: dict[str, Json] | None, content_type: str) -> Meter:
        """A fresh meter for the answer to this request; `content_type` is the answer's."""
        ...

    def told_limit(self, status: int, headers: Mapping[str, str], body: bytes) -> ToldLimit:
        """What an answer of 400 or more says of the key; `body` is b"" when it was too long to be kept."""
        ...

    def refusal_body(self, status: int, refusal: Refusal, request_id: str) -> bytes:
        """The refusal in this vendor's own JSON error shape, naming leasehold and the reason."""
        ...

    def refusal_event(self, refusal: Refusal, request_id: str) -> bytes:
        """The same as the last event of a stream that is being cut."""
        ...


class PriceBook(Protocol):
    """Prices by provider and model."""

    def price(self, provider: str, model: str) -> ModelPrice | None:
        """The price, or None when unknown (then the call is refused)."""
        ...
