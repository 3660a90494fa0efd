"""The cache of minted tokens: early, one at a time, by rule and version; and what calls get when no token comes."""

import asyncio
import json

import pytest
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.flows.agent_tokens import AgentTokens, holder_name
from leasehold_broker.flows.federated_keys import FederatedKey, FederatedKeys
from leasehold_broker.ports.token_exchange import ExchangeFault, ExchangeState, Minted
from leasehold_broker.providers.exchanges.anthropic import AnthropicExchange
from leasehold_broker.providers.exchanges.aws import BedrockExchange

LIFE = 600


class Endpoints:
    """Implements `TokenEndpoints`: mints numbered tokens, or fails; holds each exchange until it is let go."""

    def __init__(self):
        """Mint at once."""
        self.asked, self.fault, self.gate, self.life = [], None, None, LIFE

    async def carry(self, exchanging):
        """See the port."""
        self.asked.append(next(exchanging))
        exchanging.close()
        number = len(self.asked)
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return Minted(Secret(f"minted-{number}".encode()), self.life)


class Files:
    """Implements `Assertions`: any file holds a token, unless the test says not."""

    fault = None

    def read(self, _path):
        """See the port."""
        if self.fault is not None:
            raise self.fault
        return Secret(b"work.load.token")


class World:
    """Two federated keys: one at Anthropic, one at Bedrock."""

    def __init__(self, version=1):
        """Start with nothing minted."""
        self.clock, self.endpoints, self.files, self.told = ManualClock(), Endpoints(), Files(), []
        rules = {"wif": AnthropicExchange("fdrl", "org"), "bedrock": BedrockExchange("arn:aws:iam::1:role/r", "eu")}
        keys = [FederatedKey(name, "anthropic", "prod", version, rule, "f") for name, rule in rules.items()]
        keys.append(FederatedKey("own", "anthropic", "prod", version, rules["wif"], ""))
        self.agents = AgentTokens(self.clock, wanted=True)
        self.keys = FederatedKeys(
            keys, self.endpoints, self.files, self.agents, self.clock, CountingEntropy(), self.told.append
        )

    async def value(self, name="wif", models=()):
        """The token in use now."""
        return (await self.keys.secret(name, models)).reveal().decode()

    async def refused(self):
        """The refusal of a call."""
        with pytest.raises(Refusal) as caught:
            await self.keys.secret("wif")
        return caught.value


@pytest.fixture
async def world():
    """Keys, closed at the end."""
    world = World()
    yield world
    await world.keys.aclose()


async def settle():
    """Let what runs behind come to its end."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_exchange_serves_many_calls(world):
    """A hundred calls at once make one exchange; the record says federated, and holds no secret."""
    world.endpoints.gate = asyncio.Event()
    calls = [asyncio.create_task(world.value()) for _ in range(100)]
    await settle()
    world.endpoints.gate.set()
    assert set(await asyncio.gather(*calls)) == {"minted-1"}
    assert await world.value() == "minted-1"
    assert len(world.endpoints.asked) == 1
    assert world.keys.find("wif").kind is KeyKind.FEDERATED
    assert "minted-" not in repr(world.keys) + repr(world.told)


async def test_renewal_is_early_and_behind(world):
    """Past 80 % of its life at the latest the next call still gets the old token, at once, and a new one is fetched."""
    await world.value()
    world.clock.advance(LIFE * 0.59)
    await world.value()
    await settle()
    assert len(world.endpoints.asked) == 1
    world.clock.advance(LIFE * 0.22)
    world.endpoints.gate = asyncio.Event()
    assert await world.value() == "minted-1"
    assert await world.value() == "minted-1"
    world.endpoints.gate.set()
    await settle()
    assert await world.value() == "minted-2"
    assert len(world.endpoints.asked) == 2


async def test_renewals_differ_from_sidecar_to_sidecar():
    """The moment of renewal is spread over a fifth of the life, so that a fleet does not ask together."""
    moments = set()
    for seed in range(20):
        world = World()
        world.keys._entropy = CountingEntropy(str(seed))
        await world.value()
        moments.add(next(iter(world.keys._tokens.values())).renew_ns)
        await world.keys.aclose()
    assert len(moments) > 10
    spread = (max(moments) - min(moments)) / 1e9
    assert LIFE * 0.1 < spread <= LIFE * 0.2


async def test_a_failed_renewal_changes_nothing_while_the_token_lives(world):
    """The endpoint is down for the rest of the life: calls go on to the last 30 seconds, then are refused."""
    await world.value()
    world.endpoints.fault = ExchangeFault(ExchangeState.UNREACHABLE, "down")
    for _ in range(50):
        world.clock.advance(LIFE / 60)
        assert await world.value() == "minted-1"
        await settle()
    asked = len(world.endpoints.asked)
    assert asked < 15  # renewals were tried with growing pauses, not with each call
    world.clock.advance(LIFE - 50 * LIFE / 60 - 29)
    refusal = await world.refused()
    assert refusal.reason is Reason.KEY_UNAVAILABLE
    assert "unreachable" in refusal.detail
    assert refusal.retry_after_seconds
    world.endpoints.fault = None
    world.clock.advance(61)
    assert (await world.value()).startswith("minted-")


async def test_sixteen_suspended_hours(world):
    """A token from before a long sleep is not used: the boot clock counts suspended time."""
    await world.value()
    world.clock.advance(16 * 3600)
    assert await world.value() == "minted-2"


async def test_a_refused_rule_is_not_asked_with_each_call(world):
    """REFUSED is not retried by the caller, and asked again only after a pause that doubles up to a minute."""
    world.endpoints.fault = ExchangeFault(ExchangeState.REFUSED, "no rule")
    for _ in range(100):
        assert (await world.refused()).retry_after_seconds is None
    assert len(world.endpoints.asked) == 1
    for _ in range(600):
        world.clock.advance(1)
        await world.refused()
    assert 10 < len(world.endpoints.asked) < 20


async def test_the_endpoint_says_when_to_come_back(world):
    """A Retry-After is kept, up to a minute."""
    world.endpoints.fault = ExchangeFault(ExchangeState.RATE_LIMITED, "slow down", 30.0)
    await world.refused()
    world.clock.advance(29)
    await world.refused()
    assert len(world.endpoints.asked) == 1
    world.clock.advance(2)
    await world.refused()
    assert len(world.endpoints.asked) == 2


async def test_no_workload_token(world):
    """Without a token to exchange nothing is asked, and the refusal's detail says why."""
    world.files.fault = ExchangeFault(ExchangeState.NO_ASSERTION, "workload token file f: No such file")
    assert "no_assertion" in (await world.refused()).detail
    assert world.endpoints.asked == []


async def test_tokens_are_kept_by_models_only_where_they_are_narrowed(world):
    """Bedrock: one token for each set of models. Anthropic: one for all."""
    assert await world.value("bedrock", ("a",)) == "minted-1"
    assert await world.value("bedrock", ("b",)) == "minted-2"
    assert await world.value("bedrock", ("a",)) == "minted-1"
    assert await world.value("wif", ("a",)) == "minted-3"
    assert await world.value("wif", ("b",)) == "minted-3"


async def test_the_number_of_tokens_is_bounded(world, monkeypatch):
    """A thousand sets of models and more keep a bounded number of tokens."""
    monkeypatch.setattr("leasehold_broker.flows.federated_keys.TOKENS_MAX", 10)
    for number in range(50):
        await world.value("bedrock", (f"model-{number}",))
    assert len(world.keys._tokens) == 10


async def test_a_token_that_the_provider_refused_is_forgotten(world):
    """After a 401 the next call gets a fresh token."""
    await world.value()
    world.keys.forget("wif")
    assert await world.value() == "minted-2"


async def test_a_caller_who_leaves_takes_nothing_along(world):
    """A cancelled call does not cancel the exchange that others wait for."""
    world.endpoints.gate = asyncio.Event()
    first, second = asyncio.create_task(world.value()), asyncio.create_task(world.value())
    await settle()
    first.cancel()
    await settle()
    world.endpoints.gate.set()
    assert await second == "minted-1"


async def test_a_token_of_its_own(world):
    """A token that is handed out is minted for that lease alone, and refused when it would live too long."""
    shared = await world.value()
    minted = await world.keys.mint("wif", (), LIFE)
    assert minted.token != Secret(shared.encode())
    assert await world.value() == shared
    with pytest.raises(Refusal) as caught:
        await world.keys.mint("wif", (), LIFE - 1)
    assert caught.value.reason is Reason.DISCLOSURE_NOT_ALLOWED


async def test_short_tokens_are_used_for_nine_tenths(world):
    """A life of 20 seconds loses 2 at its end, not 30."""
    world.endpoints.life = 20
    await world.value()
    world.clock.advance(17.9)
    assert await world.value() == "minted-1"


ALICE, BOB = Subject("https://idp", "agents/alice"), Subject("https://idp", "agents/bob")


def shown(world, who, token, life_seconds=600):
    """An agent has shown a token that was verified."""
    expires = world.clock.now().wall_ms + life_seconds * 1000
    world.agents.saw(Identity(who, {}, "", expires), token)


def assertion(world) -> str:
    """What was exchanged last."""
    return json.loads(world.endpoints.asked[-1].body)["assertion"]


async def own(world, who) -> str:
    """The token that calls of this agent carry."""
    return (await world.keys.secret("own", (), who)).reveal().decode()


async def test_each_agents_own_token_is_exchanged(world):
    """Two agents, two tokens, each minted for the agent's own; nobody gets another's, and events say whose it was."""
    shown(world, ALICE, "token.of.alice")
    shown(world, BOB, "token.of.bob")
    first = await own(world, ALICE)
    assert assertion(world) == "token.of.alice"
    assert await own(world, BOB) != first
    assert assertion(world) == "token.of.bob"
    assert await own(world, ALICE) == first
    assert [each.holder for each in world.told] == [ALICE, BOB]
    minted = await world.keys.mint("own", (), LIFE, BOB)
    assert minted.token.reveal().decode() not in {first, await own(world, BOB)}
    assert assertion(world) == "token.of.bob"


async def test_the_newest_token_of_an_agent_serves(world):
    """A renewal shows a fresh one; one that ends earlier does not replace it; a renewal of the minted one uses it."""
    shown(world, ALICE, "token.one", 300)
    shown(world, ALICE, "token.two", 4000)
    shown(world, ALICE, "token.three", 100)
    await own(world, ALICE)
    assert assertion(world) == "token.two"
    world.clock.advance(LIFE * 0.85)
    await own(world, ALICE)
    await settle()
    assert len(world.endpoints.asked) == 2
    assert assertion(world) == "token.two"


async def test_without_a_token_of_the_agent_nothing_is_asked(world):
    """None shown, or run out: refused with a reason, told once; shown again, it serves at once, without a pause."""
    for _ in range(5):
        with pytest.raises(Refusal, match="no token could be had") as caught:
            await own(world, ALICE)
        assert "no_assertion" in caught.value.detail
    shown(world, ALICE, "token.short", 10)
    world.clock.advance(10)
    with pytest.raises(Refusal):
        await own(world, ALICE)
    assert world.endpoints.asked == []
    shown(world, ALICE, "token.fresh")
    assert await own(world, ALICE) == "minted-1"


async def test_nobodys_lease_has_no_token(world):
    """A probe of the broker's own, for nobody's lease: refused, and nothing is told or asked."""
    shown(world, ALICE, "token.of.alice")
    with pytest.raises(Refusal, match="of nobody's lease"):
        await world.keys.secret("own")
    assert (world.endpoints.asked, world.told) == ([], [])


def test_tokens_are_kept_only_where_a_key_wants_them(monkeypatch):
    """Nothing is kept without such a key; never more than so many; none is shown."""
    clock = ManualClock()
    nobody = AgentTokens(clock, wanted=False)
    nobody.saw(Identity(ALICE, {}, "", 2**50), "token.of.alice")
    assert repr(nobody) == "AgentTokens(holders=0)"
    monkeypatch.setattr("leasehold_broker.flows.agent_tokens.HOLDERS_MAX", 3)
    some = AgentTokens(clock, wanted=True)
    for number in range(10):
        some.saw(Identity(Subject("https://idp", f"a{number}"), {}, "", 2**50), "token.of.alice")
    assert repr(some) == "AgentTokens(holders=3)"


def test_no_two_agents_have_one_name():
    """Issuer and subject cannot run into each other."""
    assert holder_name(Subject("https://a|b", "c")) != holder_name(Subject("https://a", "b|c"))
