"""Alerts from the log: which events, in which words, once in a window, at least once, each endpoint for itself."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
from tests.fakes.centre import eventually
from tests.fakes.manual_clock import ManualClock
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.domain.alert_rules import Severity
from leasehold_broker.domain.alerts import ALARMS_OF_A_KIND_MAX, OPEN_KEYS_MAX, Alert, Open, Quiet, alert_of
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.revocation import Everything
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.fleet_revocations import FleetRevocations
from leasehold_broker.flows.send_alerts import AlertRule, SendAlerts
from leasehold_broker.flows.watch_collector import Patience, WatchCollector, Watched
from leasehold_broker.ports.alert_endpoint import AlertNotSentError, AlertRejectedError
from leasehold_broker.ports.revocation_issuer import RevocationDraft
from leasehold_broker.ports.revocation_log import KnownSidecar
from leasehold_broker.wire.event_body import decode_event, encode_event

TAKEN_OUT = Event(EventType.KEY_TAKEN_OUT, 5, Outcome.FAILED, details={"key": "prod", "message": "401"})
NOT_READ = Event(EventType.KEY_NOT_READ, 5, Outcome.FAILED, details={"key": "prod", "why": "it is sealed"})
TAKEN_BACK = Event(EventType.KEY_TAKEN_BACK, 6, Outcome.ALLOWED, details={"key": "prod"})


class RememberingEndpoint:
    """Implements the port; takes what comes, unless told to fail."""

    def __init__(self):
        """Takes everything."""
        self.sent: list[Alert] = []
        self.faults: list[Exception] = []

    async def send(self, alert):
        """As the port says."""
        if self.faults:
            raise self.faults.pop(0)
        self.sent.append(alert)

    async def close(self):
        """As the port says."""


@pytest.fixture
async def store(tmp_path):
    """A store of one life."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    yield store
    await store.close()


@contextlib.asynccontextmanager
async def told(store, endpoint, **rule):
    """A sender that runs."""
    sender = SendAlerts(AlertRule("pager", retry_first_seconds=0.001, **rule), endpoint, store, store, decode_event)
    await sender.start()
    task = asyncio.create_task(sender.run())
    try:
        async with asyncio.timeout(240):
            yield sender
    finally:
        task.cancel()
        await asyncio.wait([task])


async def caught_up(sender):
    """Wait until it has looked at everything."""
    await eventually(lambda: sender.lag_records() == 0)


def event(type_=EventType.CALL_REFUSED, reason=None, lease="", **details) -> Event:
    """One event of agent-1."""
    return Event(type_, 7, Outcome.DENIED, reason, Subject("https://idp", "agent-1"), lease, "", details)


@pytest.mark.parametrize(
    ("given", "key", "severity"),
    [
        (event(EventType.LEASE_FROZEN, Reason.LEASE_FROZEN, "leases/a"), "lease.frozen/leases/a", "critical"),
        (TAKEN_OUT, "key.taken_out/prod", "critical"),
        (NOT_READ, "key.not_read/prod", "error"),
        (replace(NOT_READ, type=EventType.KEY_NOT_MINTED), "key.not_minted/prod", "error"),
        (
            event(EventType.BUDGET_THRESHOLD, account="window:x", metric="cost"),
            "budget.threshold/window:x/cost",
            "warning",
        ),
        (event(EventType.AUDIT_SPOOL_FILLING), "audit.spool_filling/sidecar-1", "critical"),
        (event(reason=Reason.PRICE_UNKNOWN, provider="openai", model="gpt-9"), "model.unknown/openai/gpt-9", "warning"),
        (
            event(EventType.AUDIT_REFUSED, Reason.AUDIT_CHAIN_BROKEN),
            "audit.chain_broken/https://idp agent-1",
            "critical",
        ),
        (event(EventType.AUDIT_REFUSED, Reason.AUDIT_EPOCH_FENCED), "audit.fenced/https://idp agent-1", "critical"),
        (event(EventType.AUDIT_REFUSED, Reason.SIDECAR_BANNED), "audit.not_its_own/https://idp agent-1", "error"),
        (event(EventType.AUDIT_GAP_ACCEPTED, gap_stream="s-2"), "audit.gap_accepted/s-2", "critical"),
        (event(EventType.AUDIT_TAIL_UNKNOWN, tail_stream="s-2"), "audit.tail_unknown/s-2", "warning"),
        (event(EventType.REVOCATION_LAGGING, epoch=4), "revocation.lagging/4", "critical"),
        (event(EventType.SINK_FAILED, sink="siem"), "sink.failed/siem", "error"),
        (event(EventType.TASK_FAILED, task="end-blocks"), "task.failed/sidecar-1/end-blocks", "error"),
        (event(EventType.POLICY_REJECTED), "policy.rejected/sidecar-1", "error"),
        (event(EventType.PRICES_REJECTED), "prices.rejected/sidecar-1", "error"),
        (event(EventType.ALERT_REJECTED, endpoint="pager"), "alert.rejected/pager", "error"),
    ],
)
def test_each_trouble_has_a_key_a_severity_and_advice(given, key, severity):
    """The key names the trouble and not the event, so that a thousand of it are one; the body survives the wire."""
    alert = alert_of(decode_event(encode_event(given)), "sidecar-1", "sidecar-1/e/1")
    assert (alert.key, alert.severity.value, alert.resolves) == (key, severity, False)
    assert alert.advice.endswith((".", ";"))
    assert alert_of(event(EventType.CALL_ADMITTED), "sidecar-1", "p") is None
    assert alert_of(event(reason=Reason.BUDGET_EXHAUSTED), "sidecar-1", "p") is None


def test_what_ends_a_trouble_has_its_key():
    """Each recovery resolves what its beginning has opened."""
    for end, details, key in (
        (EventType.KEY_TAKEN_BACK, {"key": "prod"}, "key.taken_out/prod"),
        (EventType.KEY_READ, {"key": "prod"}, "key.not_read/prod"),
        (EventType.KEY_MINTED, {"key": "prod"}, "key.not_minted/prod"),
        (EventType.KEY_ROTATION_DONE, {"key": "prod"}, "key.rotation_failed/prod"),
        (EventType.SINK_RECOVERED, {"sink": "siem"}, "sink.failed/siem"),
        (EventType.TASK_RECOVERED, {"task": "t"}, "task.failed/sidecar-1/t"),
        (EventType.REVOCATION_COMPLETE, {"epoch": 4}, "revocation.lagging/4"),
        (EventType.POLICY_LOADED, {}, "policy.rejected/sidecar-1"),
        (EventType.AUDIT_SPOOL_DRAINED, {}, "audit.spool_filling/sidecar-1"),
        (EventType.COLLECTOR_STARTED, {}, "collector.failed/sidecar-1"),
    ):
        alert = alert_of(event(end, **details), "sidecar-1", "p")
        assert (alert.key, alert.resolves) == (key, True)


def test_a_store_s_reason_is_told_and_an_agent_s_own_token_alerts_nobody():
    """What the event says of the store is in the alert; a token that an agent shows is its own trouble."""
    assert alert_of(NOT_READ, "sidecar-1", "place").seen == "it is sealed"
    assert alert_of(event(EventType.KEY_NOT_MINTED, key="prod"), "sidecar-1", "place") is None


def test_a_rotation_that_needs_somebody_alerts():
    """A failure, a wait for a person and an outage each tell which key and why; a step that goes well tells nobody."""
    for kind, severity in (
        (EventType.KEY_ROTATION_FAILED, "error"),
        (EventType.KEY_ROTATION_AWAITS_PERSON, "warning"),
        (EventType.KEY_ROTATION_DELAYED, "warning"),
    ):
        alert = alert_of(event(kind, key="prod", message="the store is sealed"), "centre", "p")
        assert (alert.key, alert.severity.value, alert.resolves) == (f"{kind.value}/prod", severity, False)
        assert "the store is sealed" in alert.seen
    assert alert_of(event(EventType.KEY_ROTATION_STEPPED, key="prod"), "centre", "p") is None


def test_a_hostile_callers_words_are_bounded_one_line_and_without_secrets():
    """A model's name is the agent's own text: it reaches a chat as short plain words, or as a digest in the key."""
    hostile = "x\n<!channel> sk-ant-api03-abcdefghijklmnop " + "y" * 5000
    alert = alert_of(event(reason=Reason.PRICE_UNKNOWN, provider="openai", model=hostile), "sidecar-1", "p")
    assert len(alert.key) <= 255
    assert len(alert.title) < 400
    assert "sk-ant" not in alert.key + alert.title
    assert "\n" not in alert.title
    other = alert_of(event(reason=Reason.PRICE_UNKNOWN, provider="o" * 5000, model="z" * 300), "sidecar-1", "p")
    assert len(other.key) <= 255


def test_one_trouble_is_told_once_in_a_window_and_then_with_the_count():
    """Held back ones are counted; a resolve of nothing is nothing; a clock set back lets an alert through."""
    quiet, alert = Quiet(1000), alert_of(TAKEN_OUT, "s", "p")
    back = alert_of(TAKEN_BACK, "s", "p")
    assert quiet.decide(back, 0) == (None, {})
    for now, expected in ((0, 0), (1, None), (999, None), (1000, 2), (1500, None), (100, 1)):
        told_alert, changes = quiet.decide(alert, now)
        quiet.remember(changes)
        assert (None if told_alert is None else told_alert.repeated) == expected
    resolved, changes = quiet.decide(back, 2000)
    assert resolved == back
    quiet.remember(changes)
    assert quiet.open == {}


def decided(quiet, event, stream, now=0):
    """What is told of this event of this stream: its key, with "over" when it ends; None for nothing."""
    alert, changes = quiet.decide(alert_of(event, stream, "p"), now)
    quiet.remember(changes)
    return None if alert is None else f"{alert.key}{' over' if alert.resolves else ''}"


def test_a_trouble_that_several_report_is_over_once_each_has_taken_it_back():
    """Whoever did not report it ends nothing, nor does one of those who did; after a window it is told once more."""
    quiet = Quiet(1000)
    assert decided(quiet, TAKEN_OUT, "s-1") == "key.taken_out/prod"
    assert decided(quiet, TAKEN_OUT, "s-2") is None
    assert decided(quiet, TAKEN_BACK, "s-3") is None
    assert decided(quiet, TAKEN_BACK, "s-1") is None
    assert decided(quiet, TAKEN_BACK, "s-1") is None
    assert decided(quiet, TAKEN_OUT, "s-3", 1500) == "key.taken_out/prod"
    assert decided(quiet, TAKEN_BACK, "s-2", 1600) is None
    assert decided(quiet, TAKEN_BACK, "s-3", 1600) == "key.taken_out/prod over"
    assert quiet.open == {}


def test_reporters_are_bounded_and_of_one_too_many_it_is_never_over_by_itself(monkeypatch):
    """What is not known of all cannot be said of all."""
    monkeypatch.setattr("leasehold_broker.domain.alerts.REPORTERS_MAX", 2)
    quiet = Quiet(1000)
    for stream in ("s-1", "s-2", "s-3", "s-4"):
        decided(quiet, TAKEN_OUT, stream)
    assert len(quiet.open["key.taken_out/prod"].reporters) == 3
    assert [decided(quiet, TAKEN_BACK, stream) for stream in ("s-1", "s-2", "s-3", "s-4")] == [None] * 4


def test_a_sidecar_that_raises_very_many_alarms_is_told_as_one_and_keeps_nobody_else_quiet():
    """Of one kind so many, then one that says so; other kinds, sidecars and windows have their own."""
    quiet = Quiet(1000)

    def out(number):
        return replace(TAKEN_OUT, details={"key": f"key-{number}"})

    told = [decided(quiet, out(number), "s-1") for number in range(100)]
    assert [key for key in told if key] == [
        *(f"key.taken_out/key-{number}" for number in range(ALARMS_OF_A_KIND_MAX)),
        "alarms.many/s-1/key.taken_out",
    ]
    assert decided(quiet, NOT_READ, "s-1") == "key.not_read/prod"
    assert decided(quiet, out(99), "s-2") == "key.taken_out/key-99"
    assert decided(quiet, out(99), "s-1", 1000) is not None
    swaying = [decided(quiet, given, "s-3") for _ in range(50) for given in (TAKEN_OUT, TAKEN_BACK)]
    assert len([key for key in swaying if key]) == 2 * ALARMS_OF_A_KIND_MAX + 1


def test_the_memory_of_told_troubles_is_bounded(monkeypatch):
    """The ones silent longest are forgotten first, in memory and on disk."""
    monkeypatch.setattr("leasehold_broker.domain.alerts.OPEN_KEYS_MAX", 2)
    quiet = Quiet(1000)
    changes = [quiet.remember({name: Open(when)}) for name, when in (("a", 1), ("b", 2), ("c", 3))]
    assert changes[-1] == {"c": Open(3), "a": None}
    assert sorted(quiet.open) == ["b", "c"]
    assert OPEN_KEYS_MAX == 10_000


async def test_an_endpoint_is_told_once_resolved_once_and_a_restart_repeats_nothing(store):
    """Place and memory are kept together: the next life neither repeats nor forgets."""
    endpoint = RememberingEndpoint()
    async with told(store, endpoint) as sender:
        for given in (TAKEN_OUT, event(EventType.CALL_ADMITTED), TAKEN_OUT):
            await store.record(given)
        await caught_up(sender)
    async with told(store, endpoint) as sender:
        await store.record(TAKEN_OUT)
        await store.record(TAKEN_BACK)
        await caught_up(sender)
    assert [(alert.key, alert.resolves) for alert in endpoint.sent] == [
        ("key.taken_out/prod", False),
        ("key.taken_out/prod", True),
    ]
    assert (await store.follower("alerts/pager")).memory == {}


@pytest.mark.parametrize("gone", [EventType.SIDECAR_BANNED, EventType.SIDECAR_EVICTED])
async def test_what_only_a_sidecar_reports_that_is_gone_is_over(store, gone):
    """It takes nothing back any more; what another reports lasts, and so does what it saw happen; over a restart."""
    endpoint = RememberingEndpoint()
    first, second = Emitter("sidecar-1"), Emitter("sidecar-2")
    other = replace(TAKEN_OUT, details={"key": "other"})
    seen = event(EventType.FINDING_HONEYTOKEN, honeytoken="h"), event(EventType.LEASE_FROZEN, lease="leases/a")
    types = ("key.", "finding.", "lease.")
    async with told(store, endpoint, types=types) as sender:
        reported = (TAKEN_OUT, other, NOT_READ, *seen)
        await store.append("sidecar-1", [first.emit(one) for one in reported], 1)
        await store.append("sidecar-2", [second.emit(TAKEN_OUT)], 1)
        await caught_up(sender)
    async with told(store, endpoint, types=types) as sender:
        await store.record(Event(gone, 8, Outcome.ALLOWED, details={"sidecar": "sidecar-1"}))
        await caught_up(sender)
        assert sorted(alert.key for alert in endpoint.sent if alert.resolves) == [
            "key.not_read/prod",
            "key.taken_out/other",
        ]
        await store.append("sidecar-2", [second.emit(TAKEN_BACK)], 9)
        await caught_up(sender)
    assert endpoint.sent[-1].key == "key.taken_out/prod"
    assert endpoint.sent[-1].resolves
    left = (await store.follower("alerts/pager")).memory
    assert [key.partition("/")[0] for key in sorted(left)] == ["finding.honeytoken", "lease.frozen"]


async def test_a_failing_endpoint_is_waited_for_and_loses_nothing(store):
    """It is asked again with a wait, as long as the place itself asks for."""
    endpoint = RememberingEndpoint()
    endpoint.faults = [AlertNotSentError("503"), AlertNotSentError("429", retry_after_seconds=0.002)]
    async with told(store, endpoint) as sender:
        await store.record(TAKEN_OUT)
        await eventually(lambda: endpoint.sent)
        await eventually(lambda: sender.state.failing == "")
        assert sender.state.failures == 2
        assert sender.lag_records() == 0


async def test_an_alert_that_is_never_taken_is_given_up_and_said(store):
    """It holds up no other; its rejection is an event, which alerts once and not for ever."""
    endpoint = RememberingEndpoint()
    endpoint.faults = [AlertRejectedError("it answered 400")] * 2
    async with told(store, endpoint) as sender:
        emitter, frozen = Emitter(), event(EventType.LEASE_FROZEN, Reason.LEASE_FROZEN, "leases/a")
        await store.append("sidecar-1", [emitter.emit(TAKEN_OUT), emitter.emit(frozen)], 1)
        await eventually(lambda: sender.state.rejected == 2)
        await caught_up(sender)
        await eventually(lambda: [alert.key for alert in endpoint.sent] == ["alert.rejected/pager"])
    assert sender.state.sent == 1


async def test_severity_and_types_choose_what_an_endpoint_is_told(store):
    """Resolves are told only for what was told."""
    pager, chat = RememberingEndpoint(), RememberingEndpoint()
    threshold = event(EventType.BUDGET_THRESHOLD, account="a", metric="cost")
    async with told(store, pager, severity_min=Severity.CRITICAL) as first:
        sender = SendAlerts(AlertRule("chat", types=("budget.",)), chat, store, store, decode_event)
        await sender.start()
        for given in (threshold, event(EventType.TASK_RECOVERED, task="t"), TAKEN_OUT):
            await store.record(given)
        await caught_up(first)
        await sender.step()
    assert [alert.key for alert in pager.sent] == ["key.taken_out/prod"]
    assert [alert.key for alert in chat.sent] == ["budget.threshold/a/cost"]


async def test_a_crash_between_sending_and_noting_sends_again(store, monkeypatch):
    """At least once: the place is asked to de-duplicate by the same key."""
    endpoint = RememberingEndpoint()
    sender = SendAlerts(AlertRule("pager"), endpoint, store, store, decode_event)
    await sender.start()
    await store.record(TAKEN_OUT)

    async def dies(*_, **__):
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(store, "advance", dies)
        with pytest.raises(asyncio.CancelledError):
            await sender.step()
    again = SendAlerts(AlertRule("pager"), endpoint, store, store, decode_event)
    await again.start()
    await again.step()
    assert [alert.key for alert in endpoint.sent] == ["key.taken_out/prod"] * 2


async def test_what_an_older_version_cannot_read_is_passed_over(store):
    """An event of a type that is not known alerts nobody and stops nothing."""
    endpoint = RememberingEndpoint()
    body = encode_event(TAKEN_OUT)
    async with told(store, endpoint) as sender:
        emitter = Emitter()
        await store.append("sidecar-1", [emitter.put(body.replace(b"key.taken_out", b"key.from_later"))], 1)
        await store.append("sidecar-1", [emitter.put(body)], 1)
        await caught_up(sender)
    assert [alert.type for alert in endpoint.sent] == ["key.taken_out"]


async def test_a_stuck_sink_and_a_lagging_revocation_become_events_once(store):
    """Each after its patience, and once more when it is over."""
    clock, fleet = ManualClock(), Fleet(3600)
    fleet.restore([KnownSidecar("sidecar-1", "prod", "1", 0, 0)], clock.now())
    issuer = FleetRevocations(fleet, store, clock)
    why = ["siem: 503"]
    watch = WatchCollector([Watched("siem", lambda: why[0])], issuer, store, clock, Patience(60, 30))
    await issuer.issue(RevocationDraft(Everything(), "", "alice", "r-1", clock.now().wall_ms))
    for seconds in (0, 29, 1, 29, 1, 1):
        clock.advance(seconds)
        await watch.step()
    why[0] = ""
    member = fleet.members["sidecar-1"]
    member.known = replace(member.known, applied_epoch=1)
    for _ in range(2):
        await watch.step()
    stored = [decode_event(one.record.body) for one in await store.page(EventFilter(), 0, 100)]
    assert [event.type.value for event in stored] == [
        "revocation.issued",
        "revocation.lagging",
        "sink.failed",
        "sink.recovered",
        "revocation.complete",
    ]
    assert stored[1].details["message"] == "1 of 1 sidecars have not acknowledged it: sidecar-1"
