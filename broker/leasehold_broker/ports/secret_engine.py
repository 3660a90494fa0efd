"""The port to secret engines: they make a credential when asked, under a lease of theirs, and end it when told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.secret import Secret

Form = Callable[[Mapping[str, object], int, int], Secret]
"""From an engine's answer, its life in seconds and the time in milliseconds to what is sent or handed out.

Raises SourceFault (MALFORMED) where the answer has not what it needs.
"""


@dataclass(frozen=True, slots=True)
class Opened:
    """A token was made, good for one key alone; everything read with it ends with it.

    Args:
        accessor: names the token; no secret.
        life_seconds: after which it ends by itself, and with it what was read.
    """

    accessor: str
    life_seconds: int


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """A credential.

    Args:
        value: as it is sent or handed out.
        engine_lease: by which the engine knows it.
        life_seconds: until it ends unless it is renewed.
        renewable: it can be.
    """

    value: Secret
    engine_lease: str
    life_seconds: int
    renewable: bool


class SecretEngine(Protocol):
    """Makes and ends credentials. Every method raises SourceFault, whose state says why."""

    async def open(self, key: str, life_seconds: int) -> Opened:
        """A token for one reading, that ends by itself after `life_seconds` unless it is renewed."""
        ...

    async def read(self, key: str, accessor: str) -> EngineAnswer:
        """A credential, read with the token of this accessor, which was opened just now and is used up."""
        ...

    async def renew(self, accessor: str, engine_lease: str, life_seconds: int) -> int:
        """Extend both lives by this much; what is left of the shorter, in seconds. MISSING: it has ended."""
        ...

    async def revoke(self, accessor: str, engine_lease: str) -> None:
        """End credential and token, now. One that has ended already is no fault. `engine_lease` may be ""."""
        ...

    async def aclose(self) -> None:
        """Let go of connections and threads."""
        ...
