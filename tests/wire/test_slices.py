"""Slices of fleet budgets on the wire: what crosses comes back the same, and nonsense is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.v1 import sidecar_service_pb2 as pb
from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.fleet_budget import FLEET_BUDGETS_MAX, KEEP_ALL, Applies, SliceReport, SliceTold
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation_history import NOTHING
from leasehold_broker.domain.sync import Hello, Push, SyncMessage
from leasehold_broker.wire.slices import REPORTS_MAX, TOTAL_MAX, reports_from_proto, slices_from_proto
from leasehold_broker.wire.sync import message_from_proto, message_to_proto, push_from_proto, push_to_proto

NAME = "fleet:key:anthropic-prod|month"
totals = st.integers(0, TOTAL_MAX)
reports = st.builds(
    SliceReport, st.just(NAME), st.sampled_from(Metric), totals, totals, totals, totals, totals, totals, totals
)
told = st.builds(
    SliceTold,
    st.just(NAME),
    st.sampled_from(Metric),
    st.sampled_from([Applies("everything", "", ""), Applies("label", "team", "search"), Applies("key", "", "k")]),
    totals,
    totals,
    st.one_of(totals, st.just(KEEP_ALL)),
    totals,
    st.integers(0, 3600).map(float),
    st.integers(0, 2**40),
)


@given(st.lists(reports, max_size=4), st.text("abc-", max_size=9))
def test_what_a_sidecar_says_comes_back_the_same(said: list[SliceReport], life: str) -> None:
    """Every total, and the life that they are of."""
    message = SyncMessage(Hello("sidecar-1", "prod", "1", life), 1, slices=tuple(said), budget_history=NOTHING)
    assert message_from_proto(message_to_proto(message)) == message


@given(st.none() | st.lists(told, max_size=4))
def test_what_the_centre_says_comes_back_the_same(said: list[SliceTold] | None) -> None:
    """Every slice; that there are none, and that nothing is known of fleet budgets, are two answers."""
    push = Push(0, (), 60.0, 0, slices=None if said is None else tuple(said), history=NOTHING, budget_history=NOTHING)
    assert push_from_proto(push_to_proto(push)) == push


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget": "on:everything|day"},
        {"budget": "fleet:" + "x" * 1100},
        {"budget": "fleet:\x1b[2J"},
        {"metric": "euros"},
        {"fence": -1},
        {"granted": -1},
        {"returned": TOTAL_MAX + 1},
        {"spent": -1},
        {"held": -1},
        {"want": -1},
        {"need": -1},
    ],
)
def test_a_report_that_cannot_be_is_refused(wrong: dict) -> None:
    """A hostile sidecar's numbers are looked at before anybody counts with them."""
    message = pb.SliceReport(**({"budget": NAME, "metric": "cost_micro_usd"} | wrong))
    with pytest.raises(Refusal) as failed:
        reports_from_proto(pb.SliceReports(reports=[message]))
    assert failed.value.reason is Reason.FIELD_INVALID


def test_no_more_reports_and_slices_are_read_than_there_can_be() -> None:
    """Both lists are bounded."""
    report = pb.SliceReport(budget=NAME, metric="requests")
    assert len(reports_from_proto(pb.SliceReports(reports=[report] * REPORTS_MAX))) == REPORTS_MAX
    with pytest.raises(Refusal):
        reports_from_proto(pb.SliceReports(reports=[report] * (REPORTS_MAX + 1)))
    with pytest.raises(Refusal):
        slices_from_proto(pb.BudgetSlices(slices=[pb.BudgetSlice()] * (5 * FLEET_BUDGETS_MAX + 1)))


@pytest.mark.parametrize(
    "wrong",
    [{"level": "subject"}, {"level": "planet"}, {"granted": -1}, {"keep": -1}, {"remaining": -1}, {"fence": -1}],
)
def test_a_slice_of_a_kind_that_is_not_known_is_not_believed(wrong: dict) -> None:
    """A newer centre's kind of budget: refused, so that authority runs out instead of a limit being passed over."""
    members = {"budget": NAME, "metric": "cost_micro_usd", "level": "everything"} | wrong
    with pytest.raises(Refusal) as failed:
        slices_from_proto(pb.BudgetSlices(slices=[pb.BudgetSlice(**members)]))
    assert failed.value.reason is Reason.FIELD_INVALID
