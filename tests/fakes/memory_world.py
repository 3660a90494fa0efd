"""Small, complete surroundings in memory: keys, policies, prices and a centre that obey the test."""

from collections.abc import Sequence
from dataclasses import replace

from tests.fakes.planted import planted

from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.keys import KeyRecord, KeyState
from leasehold_broker.domain.policy import LeaseRequest, Policy, Terms
from leasehold_broker.domain.price import ModelPrice
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import Instant
from leasehold_broker.ports.token_exchange import Minted


class MemoryKeys:
    """Implements the key store port."""

    def __init__(self, *keys: KeyRecord) -> None:
        """Start."""
        self.by_name = {key.name: key for key in keys}
        self.values: dict[str, Secret] = {}

    def put(self, name: str, provider: str, environment: str, value: str) -> None:
        """Store a key, or its next version."""
        held = self.by_name.get(name)
        version = 1 if held is None else held.version + 1
        self.by_name[name] = KeyRecord(name, provider, environment, KeyState.ENABLED, version, 0)
        self.values[name] = Secret(value.encode())

    def disable(self, name: str) -> None:
        """Mark a key as not to be used."""
        self.by_name[name] = replace(self.by_name[name], state=KeyState.DISABLED)

    def records(self) -> Sequence[KeyRecord]:
        """All keys, public part."""
        return tuple(self.by_name.values())

    def find(self, name: str) -> KeyRecord | None:
        """One key, public part."""
        return self.by_name.get(name)

    async def secret(self, name: str, models: tuple[str, ...] = (), holder: Subject | None = None) -> Secret:
        """The key itself, the same for all models."""
        del models, holder
        key = self.by_name.get(name)
        if key is None:
            raise Refusal(Reason.KEY_UNAVAILABLE, f"key {name!r} is not in the store")
        if key.state is not KeyState.ENABLED:
            raise Refusal(Reason.KEY_DISABLED, f"key {name!r} is disabled")
        return self.values.get(name) or Secret(planted(f"canary-{name}").encode())


class MemoryMinter:
    """Implements the key minter port: a fresh token each time, of the life that the test says."""

    def __init__(self) -> None:
        """Start."""
        self.life_seconds = 300
        self.minted: list[str] = []

    async def mint(
        self, name: str, models: tuple[str, ...], life_seconds_max: int, holder: Subject | None = None
    ) -> Minted:
        """See the port."""
        del models, holder
        if self.life_seconds > life_seconds_max:
            raise Refusal(Reason.DISCLOSURE_NOT_ALLOWED, f"tokens of {name!r} live too long")
        self.minted.append(f"minted-canary-{len(self.minted)}")
        return Minted(Secret(self.minted[-1].encode()), self.life_seconds)


class MemoryProbe:
    """Implements the key probe port: a status for each key, 200 unless the test says otherwise."""

    def __init__(self) -> None:
        """Start."""
        self.statuses: dict[str, int] = {}
        self.asked: list[str] = []
        self.without: set[str] = set()

    def asks(self, provider: str) -> bool:
        """See the port; the test names providers without such a call."""
        return provider not in self.without

    async def probe(self, record: KeyRecord, key: Secret) -> int:
        """See the port."""
        del key
        self.asked.append(record.name)
        return self.statuses.get(record.name, 200)


class MemoryPolicies:
    """Implements the policy source port; `policy` may be replaced at any time, as a reload would."""

    def __init__(self, policy: Policy) -> None:
        """Start."""
        self.policy = policy
        self.forbidding: tuple[str, ...] = ()

    def current(self) -> Policy:
        """The policy in force."""
        return self.policy

    def forbidden_by(self, *_: Identity | LeaseRequest | Terms) -> tuple[str, ...]:
        """The names that the test has set."""
        return self.forbidding


class MemoryPrices:
    """Implements the price book port."""

    def __init__(self, prices: dict[tuple[str, str], ModelPrice]) -> None:
        """Start."""
        self.prices = prices

    def price(self, provider: str, model: str) -> ModelPrice | None:
        """The price, or None."""
        return self.prices.get((provider, model))


class MemoryCentre:
    """Implements the centre port: silent for as long as the test says."""

    def __init__(self) -> None:
        """Start."""
        self.lapsed_seconds: float | None = None

    def authority_lapsed_seconds(self, _: Instant) -> float | None:
        """None while the authority holds."""
        return self.lapsed_seconds
