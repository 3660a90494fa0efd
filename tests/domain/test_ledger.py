"""The ledger's edges, one by one."""

import pytest

from leasehold_broker.domain.amounts import ALL_METRICS, NO_CAPS, ZERO, Amounts
from leasehold_broker.domain.ledger import AccountId, Hold, HoldId, Ledger, LedgerError, Leg, Settlement, Shortfall

A = AccountId("a")
B = AccountId("b")
LEGS = (Leg(A, ALL_METRICS), Leg(B, ALL_METRICS))


@pytest.fixture
def ledger() -> Ledger:
    """Two budgets, the second smaller."""
    found = Ledger()
    found.open_account(A, NO_CAPS._replace(cost_micro_usd=100))
    found.open_account(B, NO_CAPS._replace(cost_micro_usd=50, concurrency=2))
    return found


@pytest.mark.parametrize(("wanted", "granted"), [(49, True), (50, True), (51, False)])
def test_b1_the_cap_itself_fits_and_one_more_does_not(ledger: Ledger, wanted: int, granted: bool) -> None:
    """The boundary is exact: cap - 1 and cap are granted, cap + 1 is not."""
    answer = ledger.reserve(HoldId("h"), LEGS, Amounts(wanted, requests=1))
    assert granted == isinstance(answer, Hold)


def test_b1_a_refused_reserve_holds_nothing_at_any_level(ledger: Ledger) -> None:
    """All or nothing: the first budget keeps nothing of what the second refused."""
    answer = ledger.reserve(HoldId("h"), LEGS, Amounts(51))
    assert Shortfall(B, "cost_micro_usd", 50, 50, 51) == answer
    assert ledger.account(A).held == ZERO


def test_b2_a_hold_is_positive(ledger: Ledger) -> None:
    """Nothing and less than nothing cannot be held, settled or used twice."""
    for wrong in (ZERO, Amounts(-1, 5)):
        with pytest.raises(LedgerError, match="positive"):
            ledger.reserve(HoldId("h"), LEGS, wrong)
    ledger.reserve(HoldId("h"), LEGS, Amounts(1))
    with pytest.raises(LedgerError, match="exists already"):
        ledger.reserve(HoldId("h"), LEGS, Amounts(1))
    with pytest.raises(LedgerError, match="negative"):
        ledger.settle(HoldId("h"), Amounts(-1))


def test_b4_a_charge_above_its_hold_is_recorded_as_overage(ledger: Ledger) -> None:
    """What the provider billed is settled in full, and what was beyond the hold is said."""
    ledger.reserve(HoldId("h"), LEGS, Amounts(10, requests=1))
    settlement = ledger.settle(HoldId("h"), Amounts(13, requests=1))
    assert Settlement(HoldId("h"), Amounts(13, requests=1), Amounts(3), voided=False) == settlement
    assert (Amounts(13, requests=1), Amounts(3), ZERO) == (
        ledger.account(A).settled,
        ledger.account(A).overage,
        ledger.account(A).held,
    )


def test_concurrency_is_given_back_and_never_settled(ledger: Ledger) -> None:
    """Two open calls fill a concurrency of two; an ended one makes room."""
    for name in ("1", "2"):
        ledger.reserve(HoldId(name), LEGS, Amounts(1, requests=1, concurrency=1))
    assert isinstance(ledger.reserve(HoldId("3"), LEGS, Amounts(1, concurrency=1)), Shortfall)
    ledger.settle(HoldId("1"), Amounts(1, requests=1, concurrency=1))
    assert isinstance(ledger.reserve(HoldId("4"), LEGS, Amounts(1, concurrency=1)), Hold)
    assert ledger.account(B).settled.concurrency == 0


def test_masked_metrics_are_drawn_only_where_the_mask_is_on(ledger: Ledger) -> None:
    """A leg takes of a hold what its mask names, at reserve, at settle and in the headroom."""
    tokens_only = (Leg(A, ALL_METRICS), Leg(B, (False, True, True, True, True)))
    assert ledger.headroom(tokens_only).cost_micro_usd == 100
    assert isinstance(ledger.reserve(HoldId("h"), tokens_only, Amounts(99, 7)), Hold)
    assert Amounts(0, 7) == ledger.account(B).held
    ledger.settle(HoldId("h"), Amounts(90, 6))
    assert (Amounts(90, 6), Amounts(0, 6)) == (ledger.account(A).settled, ledger.account(B).settled)


def test_an_account_with_open_holds_cannot_be_closed(ledger: Ledger) -> None:
    """Money that is held cannot be forgotten."""
    ledger.reserve(HoldId("h"), LEGS, Amounts(1))
    with pytest.raises(LedgerError, match="open holds"):
        ledger.close_account(A)
    ledger.void(HoldId("h"))
    ledger.close_account(A)
    assert ledger.account(A) is None


def test_the_unknown_is_an_error_and_never_a_default(ledger: Ledger) -> None:
    """Unknown accounts and holds are programmer errors."""
    with pytest.raises(LedgerError, match="not open"):
        ledger.reserve(HoldId("h"), (Leg(AccountId("?"), ALL_METRICS),), Amounts(1))
    with pytest.raises(LedgerError, match="unknown"):
        ledger.settle(HoldId("?"), Amounts(1))


def test_b3_b7_a_second_ending_gives_the_first_result_and_changes_nothing(ledger: Ledger) -> None:
    """Settled stays settled, whether it is settled or voided again; voided stays voided."""
    for name in ("1", "2"):
        ledger.reserve(HoldId(name), LEGS, Amounts(10, requests=1))
    settled, voided = ledger.settle(HoldId("1"), Amounts(7, requests=1)), ledger.void(HoldId("2"))
    assert [ledger.settle(HoldId("1"), Amounts(9)), ledger.void(HoldId("1"))] == [settled, settled]
    assert [ledger.settle(HoldId("2"), Amounts(9)), ledger.void(HoldId("2"))] == [voided, voided]
    assert (ledger.account(A).settled, ledger.account(A).held) == (Amounts(7, requests=1), ZERO)
