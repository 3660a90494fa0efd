"""Fleet budgets by escrow: what the centre grants and a sidecar spends, E1 to E9 of the design notes, one by one."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.escrow import Escrow, EscrowError, Slice, SliceState
from leasehold_broker.domain.escrow_shares import Demand, outlying, targets
from leasehold_broker.domain.slice import HORIZON_SECONDS, NEED_SECONDS, OwnSlice, Pace
from leasehold_broker.domain.time import NANOS

NEVER_NS = 10**18


def own(fence: int = 1, granted: int = 0, until_ns: int = NEVER_NS) -> OwnSlice:
    """A slice at its sidecar."""
    found = OwnSlice("fleet:everything|day", Metric.COST_MICRO_USD, fence)
    found.take(granted, until_ns)
    return found


def test_e1_what_is_free_is_the_cap_less_every_right() -> None:
    """Granting, returning, spending and writing off move amounts, and make none."""
    escrow = Escrow(100)
    escrow.open("a", "a1", 1)
    escrow.grant(1, 60)
    assert (escrow.free, escrow.rights, escrow.pool) == (40, 60, 100)
    assert escrow.report(1, "a1", returned=10, spent=20, held=5) == 10
    assert (escrow.free, escrow.rights, escrow.gone, escrow.pool) == (50, 50, 20, 80)
    assert escrow.write_off(1) == 30
    assert (escrow.free, escrow.rights, escrow.gone, escrow.pool) == (50, 50, 50, 50)


def test_e2_no_more_than_what_is_free_is_granted() -> None:
    """A grant of more than is free, of nothing, or to an unknown slice is a programmer error and changes nothing."""
    escrow = Escrow(100)
    escrow.open("a", "a1", 1)
    escrow.grant(1, 99)
    for amount in (2, 0, -1):
        with pytest.raises(EscrowError):
            escrow.grant(1, amount)
    with pytest.raises(EscrowError):
        escrow.grant(2, 1)
    escrow.grant(1, 1)
    assert escrow.free == 0


def test_e2_a_lowered_cap_grants_nothing_until_what_is_out_is_below_it() -> None:
    """What is out stays out: `free` is negative, and grants go on only once enough has come back."""
    escrow = Escrow(100)
    escrow.open("a", "a1", 1)
    escrow.grant(1, 80)
    escrow.cap = 50
    assert (escrow.free, escrow.pool) == (-30, 50)
    with pytest.raises(EscrowError):
        escrow.grant(1, 1)
    escrow.report(1, "a1", returned=40, spent=10, held=0)
    assert escrow.free == 10


def test_e3_a_sidecar_has_what_it_was_granted_and_did_not_return() -> None:
    """What a new call may hold is the right less what is spent and held; never negative."""
    found = own(granted=50)
    assert found.cap(0) == 50
    assert found.available(settled=20, held=10) == 20
    assert found.give_back(5, settled=20, held=10) == 15
    assert found.cap(0) == 35
    assert found.available(settled=20, held=10) == 5
    assert found.available(settled=60, held=0) == 0


def test_e4_reports_count_once_and_never_fall() -> None:
    """The same report twice, an older one and one out of order change nothing."""
    escrow = Escrow(100)
    escrow.open("a", "a1", 1)
    escrow.grant(1, 50)
    assert escrow.report(1, "a1", returned=10, spent=20, held=0) == 10
    assert escrow.report(1, "a1", returned=10, spent=20, held=0) == 0
    assert escrow.report(1, "a1", returned=4, spent=3, held=0) == 0
    found = escrow.slices[1]
    assert (found.returned, found.spent, escrow.free) == (10, 20, 60)


def test_e4_a_report_of_more_than_the_right_takes_nothing_from_others() -> None:
    """Charged beyond a hold, or a lie: what is free for others stays; a later grant covers it first."""
    escrow = Escrow(100)
    escrow.open("a", "a1", 1)
    escrow.grant(1, 50)
    escrow.report(1, "a1", returned=0, spent=10**15, held=0)
    assert (escrow.free, escrow.pool) == (50, 50)
    escrow.grant(1, 10)
    assert (escrow.gone, escrow.slices[1].available) == (60, 0)


def test_e5_what_was_returned_is_never_spent_again() -> None:
    """Once returned, words of the centre from before, or the loss of the return, bring nothing back."""
    found = own(granted=50)
    found.give_back(0, settled=20, held=0)
    found.take(50, NEVER_NS)
    found.take(30, NEVER_NS)
    assert (found.returned, found.cap(0)) == (30, 20)
    found.take(60, NEVER_NS)
    assert found.cap(0) == 30


def test_e5_a_return_of_what_was_spent_is_not_believed() -> None:
    """A return above what can be left frees only what is left."""
    escrow = Escrow(100)
    escrow.open("a", "a1", 1)
    escrow.grant(1, 50)
    assert escrow.report(1, "a1", returned=50, spent=20, held=0) == 30
    assert escrow.report(1, "a1", returned=10**9, spent=20, held=0) == 0


def test_e6_a_late_report_moves_what_was_written_off_and_frees_nothing() -> None:
    """After a write-off the truth about the money is taken, and the cap is not given back."""
    escrow = Escrow(100)
    escrow.open("a", "a1", 1)
    escrow.grant(1, 50)
    escrow.report(1, "a1", returned=0, spent=10, held=5)
    assert escrow.write_off(1) == 40
    assert escrow.write_off(1) == 0
    assert escrow.report(1, "a1", returned=40, spent=25, held=0) == 0
    found = escrow.slices[1]
    assert (found.spent, found.written_off, found.returned, escrow.free) == (25, 25, 0, 50)
    with pytest.raises(EscrowError):
        escrow.grant(1, 1)


def test_e7_another_life_ends_the_slice_of_the_one_before() -> None:
    """Of the earlier life nothing is granted to, nothing it returns is believed; its fence is not used again."""
    escrow = Escrow(100)
    escrow.open("a", "a1", 1)
    escrow.grant(1, 50)
    assert escrow.report(1, "a2", returned=50, spent=0, held=0) == 0
    ended = escrow.take_over("a", "a2")
    assert ended is escrow.slices[1]
    assert ended.state is SliceState.ENDED
    assert escrow.take_over("a", "a2") is None
    assert escrow.report(1, "a1", returned=50, spent=10, held=0) == 0
    assert escrow.report(1, "a2", returned=50, spent=12, held=0) == 0
    assert (escrow.free, escrow.pool, escrow.slices[1].spent) == (50, 50, 12)
    with pytest.raises(EscrowError):
        escrow.grant(1, 1)
    with pytest.raises(EscrowError):
        escrow.open("a", "a2", 1)
    escrow.open("a", "a2", 2)
    with pytest.raises(EscrowError):
        escrow.open("a", "a2", 3)
    escrow.grant(2, 50)
    assert escrow.free == 0


def test_e7_a_stored_slice_comes_back_as_it_was() -> None:
    """Restored, an escrow has the same sums and the same open slices."""
    escrow = Escrow(100)
    for one in (Slice(3, "a", "a1", 50, 10, 20), Slice(2, "a", "a0", 20, 0, 5, 15, 0, SliceState.WRITTEN_OFF)):
        escrow.restore(one)
    assert (escrow.free, escrow.gone, escrow.pool) == (40, 40, 60)
    assert escrow.slice_of("a") is escrow.slices[3]


def test_e8_refused_calls_come_first_and_the_longest_waiting_before_others() -> None:
    """A need is met in full or not at all; who wants more shares the rest, with a share left for a newcomer."""
    found = targets(100, [Demand("a", 500), Demand("b", 0, need=30, since=2), Demand("c", 0, need=50, since=1)])
    assert found == {"a": 10, "b": 30, "c": 50}
    found = targets(60, [Demand("b", 0, need=30, since=2), Demand("c", 0, need=50, since=1)])
    assert found == {"b": 0, "c": 50}


@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=30),
)
def test_nobody_should_have_more_than_it_may_and_the_rest_is_shared_as_ever(
    pool: int, asked: list[tuple[int, int, int]]
) -> None:
    """A need of more than that is none; what one may not have is there for others, as if it had not asked for it."""
    demands = [Demand(f"s{n}", want, need, n, most) for n, (want, need, most) in enumerate(asked)]
    found = targets(pool, demands)
    assert all(found[one.sidecar] <= one.most for one in demands)
    modest = [
        Demand(one.sidecar, min(one.want, one.most), one.need if one.need <= one.most else 0, one.since)
        for one in demands
    ]
    unlimited = targets(pool, modest)
    assert all(found[one.sidecar] == min(unlimited[one.sidecar], one.most) for one in demands)


def test_a_part_is_outlying_beside_what_others_have() -> None:
    """A quarter of the cap, and four times an equal part, among five or more; not merely the only one who spends."""
    rights = {"a": 250, "b": 10, "c": 10, "d": 10, "e": 10, "f": 0}
    assert outlying(1000, rights) == ["a"]
    assert outlying(1001, rights) == []
    assert outlying(1000, rights | {"b": 60, "c": 60}) == []
    assert outlying(1000, {"a": 900, "b": 1, "c": 1, "d": 1, "e": 0}) == []
    assert outlying(1000, {}) == []


@given(st.integers(0, 10**9), st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**7)), max_size=30))
def test_e8_shares_are_fair_and_within_the_pool(pool: int, asked: list[tuple[int, int]]) -> None:
    """Never more than the pool in all; who has less than it wants has at least what every other one's share is."""
    demands = [Demand(f"s{n}", want, need, n) for n, (want, need) in enumerate(asked)]
    found = targets(pool, demands)
    assert sum(found.values()) <= pool
    left = pool
    for one in demands:
        if 0 < one.need <= left:
            assert found[one.sidecar] >= one.need
            left -= one.need
    wanting = [one for one in demands if one.want > 0]
    share = left // (len(wanting) + 1) if wanting else 0
    for one in wanting:
        assert found[one.sidecar] >= min(one.want, share)


def test_e9_a_slice_ends_by_itself_and_words_from_before_do_not_revive_it() -> None:
    """From its end on nothing new fits; only an answer to a later heartbeat carries it on."""
    found = own(granted=50, until_ns=100)
    assert (found.cap(99), found.cap(100)) == (50, 0)
    found.take(80, 100)
    assert found.cap(100) == 0
    found.take(80, 200)
    assert found.cap(100) == 80
    found.finish()
    found.take(90, 300)
    assert found.cap(0) == 0
    found.give_back(0, settled=30, held=0)
    found.resume()
    assert found.cap(0) == 30


def test_what_was_drawn_lately_is_wanted_and_forgotten_after_the_horizon() -> None:
    """The want follows the peak of what was spent and held within the horizon; idle, it falls to nothing."""
    pace = Pace()
    assert pace.want() == 0
    pace.sample(0, 0, 0)
    pace.sample(NANOS, 0, 40)
    pace.sample(2 * NANOS, 30, 0)
    assert pace.want() == 40
    pace.sample(3 * NANOS, 30, 25)
    assert pace.want() == 30
    for second in range(4, 5 + 2 * HORIZON_SECONDS):
        pace.sample(second * NANOS, 55, 0)
    assert pace.want() == 0


def test_samples_are_bounded_and_keep_their_peak() -> None:
    """However often it is looked at, a short peak within the horizon counts."""
    pace = Pace()
    for n in range(10_000):
        pace.sample(n * NANOS // 1000, 0, 70 if n == 5000 else 0)
    assert pace.want() == 70
    assert len(pace._samples) < 200


def test_a_refused_call_is_needed_until_it_was_drawn_or_is_given_up() -> None:
    """The largest refused call that the whole budget can pay for counts, for as long as its caller may come back."""
    pace = Pace()
    pace.refused(0, 30, 100)
    pace.refused(0, 20, 100)
    assert (pace.need(0, 100, 10**6), pace.need(0, 100, 29), pace.need(0, 100, 19)) == (30, 20, 0)
    assert pace.need(0, 129, 10**6) == 30
    assert pace.need(0, 130, 10**6) == 0
    pace.refused(NANOS, 5, 130)
    assert pace.need(NEED_SECONDS * NANOS, 130, 10**6) == 5
    assert pace.need((NEED_SECONDS + 1) * NANOS, 130, 10**6) == 0
    for wanted in range(1, 1000):
        pace.refused(0, wanted, 0)
    assert len(pace._refused) < 50


def test_rounds_of_grants_and_returns_reach_every_demand_within_the_pool() -> None:
    """E8, as it plays out: a hot sidecar gets what idle ones give back, in a few rounds."""
    escrow = Escrow(1000)
    fences = itertools.count(1)
    for name in ("a", "b", "c", "d"):
        escrow.open(name, f"{name}1", next(fences))
    for fence in (1, 2, 3):
        escrow.grant(fence, 330)
    for _ in range(3):
        found = targets(escrow.pool, [Demand("a", 0), Demand("b", 0), Demand("c", 0), Demand("d", 0, 700, 1)])
        for one in escrow.slices.values():
            target = found[one.sidecar]
            if one.available > target:
                escrow.report(one.fence, one.life, one.granted - target, 0, 0)
        for one in escrow.slices.values():
            more = min(found[one.sidecar] - one.available, escrow.free)
            if more > 0:
                escrow.grant(one.fence, more)
    assert escrow.slices[4].available >= 700
