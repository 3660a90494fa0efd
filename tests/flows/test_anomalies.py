"""Anomalies: plain arithmetic with stated bounds, findings recorded once, responses within their bound."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.centre import eventually
from tests.fakes.manual_clock import ManualClock
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.baselines import (
    DAY_HOURS,
    HOUR_MS,
    ROUTES_MAX,
    AnomalyRules,
    Baseline,
    Unusual,
    from_row,
    to_row,
)
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.responses import Response, ResponseRules
from leasehold_broker.domain.revocation import ByLease, BySubject, Cause
from leasehold_broker.flows.find_anomalies import KEY_CHARACTERS_MAX, FindAnomalies
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.fleet_revocations import FleetRevocations
from leasehold_broker.flows.respond_to_findings import BY, RespondToFindings
from leasehold_broker.wire.event_body import decode_event

RULES = AnomalyRules(spend_floor_micro_usd=100, refusals_floor=5, hours_min=4, calls_min=10, days_min=3)
START = 500_000 * HOUR_MS
AGENT = Subject("https://idp", "agent-1")


def spent(micro_usd, hour=0, subject=AGENT, lease="leases/a") -> Event:
    """A settled call."""
    details = {"charged": {"cost_micro_usd": micro_usd}}
    return Event(EventType.CALL_SETTLED, START + hour * HOUR_MS, Outcome.ALLOWED, None, subject, lease, "", details)


def called(hour=0, model="small", provider="anthropic") -> Event:
    """An admitted call."""
    details = {"provider": provider, "operation": "messages", "model": model}
    return Event(EventType.CALL_ADMITTED, START + hour * HOUR_MS, Outcome.ALLOWED, None, AGENT, "leases/a", "", details)


def denied(hour=0, count=None) -> Event:
    """A refused call."""
    details = {} if count is None else {"count": count}
    type_ = EventType.CALL_REFUSED
    return Event(type_, START + hour * HOUR_MS, Outcome.DENIED, Reason.POLICY_DENIED, AGENT, "leases/a", "", details)


def taken(baseline, *events):
    """What is unusual about these."""
    return [found for event in events for found in baseline.take(event, event.wall_ms, RULES)]


def usual(hours=5, micro_usd=50) -> Baseline:
    """A subject that spends so much in each of so many hours."""
    baseline = Baseline()
    assert taken(baseline, *(spent(micro_usd, hour) for hour in range(hours))) == []
    return baseline


def test_an_hours_spending_far_above_the_usual_is_found_once():
    """Above the largest of floor, multiple and deviations; the numbers stand in the finding."""
    baseline = usual()
    [found] = taken(baseline, spent(200, 5), spent(100, 5), spent(5000, 5))
    assert found.what is Unusual.SPEND_RATE
    assert found.numbers == {"seen": 300, "bound": 250, "mean": 50, "deviation": 0, "sample": 5}
    assert "5 active hours" in found.usual
    assert taken(baseline, spent(10, 6)) == []


def test_nothing_is_judged_before_enough_hours_or_below_the_floor():
    """A new agent, or cents, alarm nobody."""
    assert taken(Baseline(), *(spent(10_000 * hour, hour) for hour in range(4))) == []
    assert taken(usual(micro_usd=1), spent(99, 5)) == []


def test_an_attack_does_not_become_usual_at_once():
    """An unusual hour enters the mean at its bound; so the next one is found too."""
    baseline = usual()
    for hour in range(5, 9):
        assert [found.what for found in taken(baseline, spent(100_000, hour))] == [Unusual.SPEND_RATE]
    assert baseline.spend.mean < 1000


def test_an_uneven_subject_gets_a_wider_bound():
    """Four deviations, where that is more than the multiple of the mean."""
    baseline = Baseline()
    quiet = AnomalyRules(spend_multiple=1, spend_floor_micro_usd=1, hours_min=2)
    for hour, micro_usd in enumerate((100, 900, 100, 900, 100, 900, 100, 900)):
        baseline.take(spent(micro_usd, hour), START + hour * HOUR_MS, quiet)
    bound = baseline.spend.bound(1, 1)
    assert bound == baseline.spend.mean + 4 * baseline.spend.deviation > 900


def test_refusals_are_counted_with_those_that_were_folded():
    """A flood that a sidecar has folded into one event counts in full."""
    baseline = Baseline()
    assert taken(baseline, *(denied(hour) for hour in range(5))) == []
    [found] = taken(baseline, denied(5, count=40))
    assert (found.what, found.numbers["seen"]) == (Unusual.REFUSALS, 40)


def test_a_new_route_is_news_once_enough_calls_were_seen():
    """Provider, operation and model; each once."""
    baseline = Baseline()
    assert taken(baseline, *(called() for _ in range(10))) == []
    [found] = taken(baseline, called(model="large"), called(model="large"))
    assert found.numbers["route"] == "anthropic/messages/large"
    assert "anthropic/messages/small" in found.usual
    assert taken(Baseline(), called(), called(model="large")) == []


def test_routes_are_bounded_and_the_unused_are_forgotten_first():
    """A caller of a thousand models fills no memory."""
    baseline = Baseline()
    for number in range(200):
        taken(baseline, called(hour=number, model=f"m-{number}"))
    assert len(baseline.routes) == ROUTES_MAX
    assert "anthropic/messages/m-199" in baseline.routes


def test_an_hour_in_which_a_subject_never_called_is_odd():
    """Neither in it nor beside it, over enough days; told once for that hour."""
    baseline = Baseline()
    for day in range(5):
        assert taken(baseline, called(day * DAY_HOURS + 9), called(day * DAY_HOURS + 10)) == []
    [found] = taken(baseline, called(5 * DAY_HOURS + 20), called(5 * DAY_HOURS + 20))
    assert found.what is Unusual.ODD_HOUR
    beside = Baseline()
    for day in range(5):
        taken(beside, called(day * DAY_HOURS + 9))
    assert taken(beside, called(5 * DAY_HOURS + 10)) == []


def test_late_events_and_clocks_set_back_break_nothing():
    """What belongs to a closed hour is not counted in an open one."""
    baseline = usual()
    assert taken(baseline, spent(1_000_000, 1), called(1), denied(0, 1000)) == []
    assert baseline.spend.now == 50


@given(
    st.lists(
        st.tuples(st.sampled_from([spent, called, denied]), st.integers(-100, 2000), st.integers(0, 10**12)),
        max_size=60,
    )
)
def test_a_baseline_survives_being_kept(steps):
    """Whatever has happened: what comes back from the store decides the same, and is within its bounds."""
    baseline = Baseline()
    for make, hour, amount in steps:
        event = make(hour=hour) if make is called else make(amount, hour) if make is spent else make(hour, amount)
        taken(baseline, event)
        again = from_row(to_row(baseline))
        assert again == baseline
    assert len(baseline.routes) <= ROUTES_MAX
    assert baseline.spend.mean >= 0
    assert baseline.spend.deviation >= 0


def test_a_damaged_row_is_refused():
    """It is learned anew, not believed."""
    for row in ({}, to_row(Baseline()) | {"of_day": [1]}, to_row(Baseline()) | {"spend": ["x", 1, 2]}):
        with pytest.raises(ValueError, match="not a baseline"):
            from_row(row)


@pytest.fixture
async def store(tmp_path):
    """A store of one life."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    yield store
    await store.close()


class World:
    """A finder over a store, with a fleet that nobody is in."""

    def __init__(self, store, responses=None, rules=RULES, **more):
        """Build it; `start` comes first."""
        self.store = store
        self.clock = ManualClock(START)
        self.issuer = FleetRevocations(Fleet(60), store, self.clock)
        self.respond = RespondToFindings(self.issuer, ResponseRules(responses or {}, **more), self.clock)
        self.finder = FindAnomalies(store, store, decode_event, self.respond, rules)
        self.emitter = Emitter()

    async def see(self, *events, receive_wall_ms=None):
        """Take these in, and look at them."""
        at = max(event.wall_ms for event in events) if receive_wall_ms is None else receive_wall_ms
        await self.store.append("sidecar-1", [self.emitter.emit(event) for event in events], at)
        while await self.finder.step():
            pass

    async def logged(self, prefix):
        """Events of the collector whose type begins like this."""
        page = await self.store.page(EventFilter(), 0, 1000)
        return [decode_event(one.record.body) for one in page if one.type.startswith(prefix)]


def honeytoken(number=1, subject=AGENT, lease="", wall_ms=START) -> Event:
    """A sidecar's finding."""
    details = {"honeytoken": f"h-{number}", "message": "presented"}
    return Event(EventType.FINDING_HONEYTOKEN, wall_ms, Outcome.DENIED, None, subject, lease, "", details)


async def test_a_finding_is_recorded_once_with_what_was_seen_and_usual(store):
    """Through a restart of the finder, and looked at again."""
    world = World(store)
    await world.finder.start()
    await world.see(*(spent(50, hour) for hour in range(5)), spent(300, 5))
    [found] = await world.logged("finding.")
    assert found.type is EventType.FINDING_SPEND_RATE
    assert found.subject.subject == "agent-1"
    assert found.lease == "leases/a"
    assert found.details["event"] == "sidecar-1/e1/6"
    later = World(store)
    later.emitter = world.emitter
    await later.finder.start()
    await later.see(spent(300, 5), spent(10, 6))
    assert len(await later.logged("finding.")) == 1
    assert later.finder.subjects == 1


async def test_what_could_not_be_noted_is_looked_at_again_from_the_state_before(store, monkeypatch):
    """A disk that fails once loses no finding and counts nothing twice."""
    world = World(store, {"spend_rate": Response.REVOKE_LEASE})
    await world.finder.start()
    await world.see(*(spent(50, hour) for hour in range(5)))
    advance = store.advance

    async def fails(*_, **__):
        raise Refusal(Reason.STORE_UNAVAILABLE, "no")

    monkeypatch.setattr(store, "advance", fails)
    with pytest.raises(Refusal):
        await world.see(spent(300, 5))
    monkeypatch.setattr(store, "advance", advance)
    while await world.finder.step():
        pass
    [found] = await world.logged("finding.")
    assert found.details["seen"] == 300
    assert len(await world.issuer.page(100, 10)) == 1


async def test_rules_may_revoke_the_lease_or_block_the_subject(store):
    """Through the usual entry, with cause and note; everything else is told only."""
    world = World(store, {"spend_rate": Response.REVOKE_LEASE, "honeytoken": Response.BLOCK_SUBJECT}, block_seconds=60)
    await world.finder.start()
    await world.see(*(spent(50, hour) for hour in range(5)), spent(300, 5), denied(5, 100), honeytoken())
    second, first = await world.issuer.page(100, 10)
    assert (first.selector, first.order.cause, first.order.block_new) == (
        ByLease("leases/a"),
        Cause.OVERSPENDING,
        False,
    )
    assert first.note.startswith("finding.spend_rate: 300 micro-USD")
    assert first.revoked_by == BY
    assert (second.selector, second.order.cause) == (BySubject("https://idp", "agent-1"), Cause.AGENT_COMPROMISED)
    assert (second.order.block_new, second.order.block_seconds) == (True, 60)
    assert world.respond.revoked == 2


async def test_a_bad_rule_cannot_stop_the_fleet(store):
    """No more than the bound within an hour, also after a restart; what is withheld is an event that alerts."""
    world = World(store, {"honeytoken": Response.BLOCK_SUBJECT}, revocations_per_hour_max=3)
    await world.finder.start()
    agents = [Subject("https://idp", f"agent-{number}") for number in range(5)]
    await world.see(*(honeytoken(subject=agent) for agent in agents))
    assert len(await world.issuer.page(100, 10)) == 3
    assert len(await world.logged("finding.response_withheld")) == 2
    again = World(store, {"honeytoken": Response.BLOCK_SUBJECT}, revocations_per_hour_max=3)
    again.emitter = world.emitter
    await again.finder.start()
    await again.see(honeytoken(subject=Subject("https://idp", "agent-9")))
    assert len(await again.issuer.page(100, 10)) == 3
    await again.see(honeytoken(subject=Subject("https://idp", "agent-9")), receive_wall_ms=START + HOUR_MS)
    assert len(await again.issuer.page(100, 10)) == 4


async def test_one_who_goes_on_does_not_use_the_bound_up(store):
    """The same subject again within ten minutes is one revocation."""
    world = World(store, {"honeytoken": Response.BLOCK_SUBJECT}, revocations_per_hour_max=2)
    await world.finder.start()
    await world.see(*(honeytoken(number) for number in range(20)))
    assert len(await world.issuer.page(100, 10)) == 1
    assert await world.logged("finding.response_withheld") == []
    await world.see(honeytoken(), receive_wall_ms=START + 600_001)
    assert len(await world.issuer.page(100, 10)) == 2


@pytest.mark.parametrize("name", ["agent-*", "*"])
async def test_a_subject_that_is_spelt_like_a_pattern_takes_nobody_with_it(store, name):
    """Its lease is revoked, where one is known; else nothing, and that is said."""
    world = World(store, {"honeytoken": Response.BLOCK_SUBJECT})
    await world.finder.start()
    hostile = Subject("https://idp", name)
    await world.see(honeytoken(subject=hostile))
    assert await world.issuer.page(100, 10) == []
    assert len(await world.logged("finding.response_withheld")) == 1
    await world.see(honeytoken(2, subject=hostile, lease="leases/b"))
    assert [entry.selector for entry in await world.issuer.page(100, 10)] == [ByLease("leases/b")]


async def test_without_statistics_only_honeytokens_are_looked_for(store):
    """And the place moves on past everything else."""
    world = World(store, {"honeytoken": Response.BLOCK_SUBJECT}, rules=None)
    await world.finder.start()
    await world.see(*(spent(10**9, hour) for hour in range(8)))
    assert world.finder.state.position == store.last_position()
    assert world.finder.subjects == 0
    await world.see(honeytoken())
    assert len(await world.issuer.page(100, 10)) == 1


async def test_whatever_a_subject_is_called_what_is_usual_for_it_is_kept(store):
    """A store may take no NUL, and no key of any length: a sidecar in other hands must not stop the search so."""
    names = ["a\0b", "a\nb", "x" * 50_000, "y" * 600, "agent-1"]
    world = World(store)
    await world.finder.start()
    for hour in range(5):
        await world.see(*(spent(50, hour, Subject("https://idp", name)) for name in names))
    keys = list((await store.follower("anomalies")).memory)
    assert len(keys) == len(names)
    assert "https://idp agent-1" in keys
    assert all(key.isprintable() and len(key) <= KEY_CHARACTERS_MAX for key in keys)
    later = World(store)
    later.emitter = world.emitter
    await later.finder.start()
    await later.see(*(spent(300, 5, Subject("https://idp", name)) for name in names))
    assert [found.subject.subject for found in await later.logged("finding.")] == names


async def test_baselines_are_bounded_and_the_silent_are_forgotten(store, monkeypatch):
    """In memory and on disk."""
    monkeypatch.setattr("leasehold_broker.flows.find_anomalies.SUBJECTS_MAX", 3)
    world = World(store)
    await world.finder.start()
    await world.see(*(spent(1, subject=Subject("https://idp", f"agent-{number}")) for number in range(6)))
    assert world.finder.subjects == 3
    kept = (await store.follower("anomalies")).memory
    assert sorted(kept) == [f"https://idp agent-{number}" for number in (3, 4, 5)]


async def test_it_follows_by_itself(store):
    """What is taken in is looked at without being asked for."""
    world = World(store, {"honeytoken": Response.BLOCK_SUBJECT})
    await world.finder.start()
    task = asyncio.create_task(world.finder.run())
    await store.append("sidecar-1", [world.emitter.emit(honeytoken())], START)
    await eventually(store.epoch)
    task.cancel()
    await asyncio.wait([task])
