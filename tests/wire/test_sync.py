"""What a sidecar and the centre tell each other of what is applied, over the wire."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from leasehold.v1 import budget_service_pb2 as budget_pb
from leasehold.v1 import sidecar_service_pb2 as pb
from leasehold_broker.domain.amounts import UNLIMITED, Metric
from leasehold_broker.domain.budget_changes import BudgetRow, BudgetRows
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation_history import NOTHING
from leasehold_broker.domain.revocation_progress import LiveLease, LiveLeases
from leasehold_broker.domain.sync import Push, SyncMessage
from leasehold_broker.wire.budgets import ROWS_MAX
from leasehold_broker.wire.sync import (
    ENDED_MAX,
    LIVE_LEASES_MAX,
    message_from_proto,
    message_to_proto,
    push_from_proto,
    push_to_proto,
)

DIGEST = bytes(range(32))


def test_digests_and_snapshots_come_back_the_same():
    """With the epoch that they are of; of nothing the digest is nothing, from whichever build."""
    message = SyncMessage(None, 7, history=DIGEST, applied_budget_change=3, budget_history=DIGEST[::-1])
    assert message_from_proto(message_to_proto(message)) == message
    push = Push(7, (), 60.0, 1, 3, history=DIGEST, snapshot=True, budget_history=DIGEST[::-1], budget_snapshot=True)
    assert push_from_proto(push_to_proto(push)) == push
    assert message_from_proto(pb.SyncStateRequest()).history == NOTHING
    assert message_from_proto(pb.SyncStateRequest()).budget_history == NOTHING


def test_a_build_that_tells_no_digest_is_told_apart():
    """It is known by its number, as before; it never passes for one that has the digest of nothing."""
    assert message_from_proto(pb.SyncStateRequest(applied_epoch=7)).history is None
    answer = push_to_proto(Push(7, (), 60.0, 1))
    assert push_from_proto(answer).history is None
    assert message_from_proto(pb.SyncStateRequest(applied_budget_change=7)).budget_history is None
    assert push_from_proto(push_to_proto(Push(7, (), 60.0, 1, 3))).budget_history is None


@pytest.mark.parametrize("digest", [b"\0", DIGEST[:31], DIGEST + b"\0"])
def test_a_digest_of_another_length_is_refused(digest: bytes):
    """In both directions."""
    for read in (
        lambda: message_from_proto(pb.SyncStateRequest(applied_epoch=1, history=digest)),
        lambda: push_from_proto(push_to_proto(Push(1, (), 60.0, 1, history=digest))),
        lambda: message_from_proto(pb.SyncStateRequest(applied_budget_change=1, budget_history=digest)),
        lambda: push_from_proto(push_to_proto(Push(1, (), 60.0, 1, 1, budget_history=digest))),
    ):
        with pytest.raises(Refusal) as refused:
            read()
        assert refused.value.reason is Reason.FIELD_INVALID


@pytest.mark.parametrize("wrong", [{"leases_ended": 2**63 - 1}, {"calls_cut": ENDED_MAX + 1}, {"leases_ended": -1}])
def test_counts_of_which_a_few_would_overflow_are_refused(wrong: dict):
    """They are summed for whoever asks how far a revocation is: one sidecar must not make that fail for all."""
    largest = pb.AppliedRevocation(epoch=1, leases_ended=ENDED_MAX, calls_cut=ENDED_MAX)
    assert message_from_proto(pb.SyncStateRequest(applied_epoch=1, applied=[largest])).applied[0].calls_cut == ENDED_MAX
    with pytest.raises(Refusal, match="applied"):
        message_from_proto(pb.SyncStateRequest(applied_epoch=1, applied=[pb.AppliedRevocation(epoch=1, **wrong)]))


def test_no_more_leases_are_read_than_say_anything():
    """Two bytes each are a hundred times as much in memory; whoever has more says how many they are."""
    nothing = [pb.LiveLease()] * (LIVE_LEASES_MAX + 1)
    with pytest.raises(Refusal, match="live_leases"):
        message_from_proto(pb.SyncStateRequest(live_leases=pb.LiveLeases(leases=nothing)))
    lease = LiveLease("", "", "", "", "", "", (), (), ())
    told = message_to_proto(SyncMessage(None, 0, live=LiveLeases((lease,) * len(nothing), len(nothing))))
    live = message_from_proto(told).live
    assert live is not None
    assert (len(live.leases), live.total, live.complete) == (LIVE_LEASES_MAX, LIVE_LEASES_MAX + 1, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"settled": -1},
        {"held": -1},
        {"cap": -1},
        {"cap": UNLIMITED + 1},
        {"reset_time": Timestamp(seconds=2**62)},
        {"reset_time": Timestamp(seconds=-1)},
        {"metric": "nothing"},
    ],
)
def test_a_budget_that_cannot_be_is_refused(wrong: dict):
    """An operator's listing of all sidecars must not fail for what one of them says."""
    row = {"budget": "leases/a", "metric": "requests", "cap": 1, **wrong}
    with pytest.raises(Refusal):
        message_from_proto(pb.SyncStateRequest(budgets=budget_pb.BudgetRows(rows=[budget_pb.BudgetRow(**row)])))


def test_no_more_budgets_are_read_than_say_anything():
    """As of leases: the rest is known by its number."""
    row = BudgetRow("b", Metric.REQUESTS, UNLIMITED, 0, 0, 0, hard=True, changed=False)
    told = message_to_proto(SyncMessage(None, 0, budgets=BudgetRows((row,) * (ROWS_MAX + 1), ROWS_MAX + 1)))
    budgets = message_from_proto(told).budgets
    assert budgets is not None
    assert len(budgets.rows) < budgets.total == ROWS_MAX + 1
    rows = [budget_pb.BudgetRow(metric="requests")] * (ROWS_MAX + 1)
    with pytest.raises(Refusal, match="budgets"):
        message_from_proto(pb.SyncStateRequest(budgets=budget_pb.BudgetRows(rows=rows)))


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.09, -1.0, 86_401.0])
def test_an_authority_of_no_time_is_none(seconds: float):
    """A sidecar would beat without a pause, and connect anew as often."""
    with pytest.raises(Refusal, match="authority_ttl"):
        push_from_proto(push_to_proto(Push(0, (), seconds, 1)))
    assert push_from_proto(push_to_proto(Push(0, (), 0.1, 1))).authority_seconds == pytest.approx(0.1)
