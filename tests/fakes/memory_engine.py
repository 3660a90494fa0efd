"""A secret engine in memory, complete: tokens, leases, lives, a longest life; broken where a test breaks it."""

import asyncio
import itertools
from dataclasses import dataclass, field

from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import NANOS
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.ports.secret_engine import EngineAnswer, Opened

OPEN, READ, RENEW, REVOKE = "open", "read", "renew", "revoke"


@dataclass
class _Token:
    end_ns: int
    used: bool = False
    leases: set = field(default_factory=set)


@dataclass
class _Lease:
    value: str
    end_ns: int
    last_ns: int


class MemoryEngine:
    """Implements `SecretEngine`; it is the server too, so it outlives the process that asks."""

    def __init__(self, clock, life_seconds=60, longest_seconds=3600, *, renewable=True) -> None:
        """An engine whose credentials live so long."""
        self.clock = clock
        self.life_seconds, self.longest_seconds, self.renewable = life_seconds, longest_seconds, renewable
        self.tokens: dict[str, _Token] = {}
        self.leases: dict[str, _Lease] = {}
        self.faults: dict[str, SourceFault] = {}
        self.lost: set[str] = set()
        """Questions that are carried out, and whose answer never arrives."""
        self.gate: asyncio.Event | None = None
        self.asked: list[str] = []
        self._numbers = itertools.count()

    async def open(self, key, life_seconds) -> Opened:  # noqa: ARG002 - the port's
        """See the port."""
        await self._question(OPEN)
        accessor = f"accessor-{next(self._numbers)}"
        self.tokens[accessor] = _Token(self.clock.now().after(life_seconds))
        return self._answer(OPEN, Opened(accessor, life_seconds))

    async def read(self, key, accessor) -> EngineAnswer:
        """See the port."""
        await self._question(READ)
        token, now, number = self.tokens[accessor], self.clock.now(), next(self._numbers)
        assert not token.used
        token.used = True
        name = f"engine/creds/{key}/{number}"
        self.leases[name] = _Lease(f"made-{number}", now.after(self.life_seconds), now.after(self.longest_seconds))
        token.leases.add(name)
        value = Secret(self.leases[name].value.encode())
        return self._answer(READ, EngineAnswer(value, name, self.life_seconds, self.renewable))

    async def renew(self, accessor, engine_lease, life_seconds) -> int:
        """See the port."""
        await self._question(RENEW)
        now, token, lease = self.clock.now(), self.tokens.get(accessor), self.leases.get(engine_lease)
        if token is None or lease is None or not self.alive(lease.value):
            raise SourceFault(SourceState.MISSING, "the engine does not know it any more")
        token.end_ns = now.after(life_seconds)
        lease.end_ns = min(now.after(life_seconds), lease.last_ns)
        return self._answer(RENEW, int((min(token.end_ns, lease.end_ns) - now.boot_ns) / NANOS))

    async def revoke(self, accessor, engine_lease) -> None:
        """See the port."""
        await self._question(REVOKE)
        self.leases.pop(engine_lease, None)
        token = self.tokens.pop(accessor, None)
        for name in () if token is None else token.leases:
            self.leases.pop(name, None)
        self._answer(REVOKE, None)

    async def aclose(self) -> None:
        """Nothing is held."""

    def alive(self, value: str) -> bool:
        """Whether a credential works."""
        now = self.clock.now().boot_ns
        return any(
            lease.value == value and now < lease.end_ns and any(now < token.end_ns for token in self._of(name))
            for name, lease in self.leases.items()
        )

    def living(self) -> list[str]:
        """Every credential that works."""
        return [lease.value for lease in self.leases.values() if self.alive(lease.value)]

    def _of(self, name: str) -> list[_Token]:
        return [token for token in self.tokens.values() if name in token.leases]

    async def _question(self, kind: str) -> None:
        self.asked.append(kind)
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if kind in self.faults:
            raise self.faults[kind]

    def _answer(self, kind, answer):
        if kind in self.lost:
            raise SourceFault(SourceState.UNREACHABLE, "did not answer in time")
        return answer
