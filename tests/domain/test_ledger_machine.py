"""The ledger against an oracle that knows nothing but a list of what happened and sums it anew each time."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from leasehold_broker.domain.amounts import METRICS, UNLIMITED, ZERO, Amounts
from leasehold_broker.domain.ledger import AccountId, Hold, HoldId, Ledger, Leg, Shortfall

small = st.integers(0, 5)
amounts = st.builds(Amounts, small, small, small, st.integers(0, 1), st.integers(0, 1))
caps = st.builds(Amounts, *(st.sampled_from((0, 1, 4, 5, 9, 20, UNLIMITED)) for _ in METRICS))
masks = st.tuples(*(st.booleans() for _ in METRICS))
ACCOUNTS = tuple(AccountId(name) for name in "abc")
legs = st.lists(st.sampled_from(ACCOUNTS), min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.tuples(*(st.builds(Leg, st.just(name), masks) for name in names))
)


class LedgerAgainstOracle(RuleBasedStateMachine):
    """Each rule is one call of the ledger; `facts` is all the oracle keeps."""

    holds = Bundle("holds")

    def __init__(self) -> None:
        """Start with nothing."""
        super().__init__()
        self.ledger = Ledger()
        self.caps: dict[AccountId, Amounts] = {}
        self.facts: list[tuple[str, HoldId, tuple[Leg, ...], Amounts]] = []
        self.endings: dict[HoldId, object] = {}
        self.before: dict[AccountId, Amounts] = {}
        self.soft = dict.fromkeys(ACCOUNTS, UNLIMITED)
        self.hard = dict.fromkeys(ACCOUNTS, True)
        self.highest: dict[AccountId, list[int]] = {}
        """What no sum may pass: the cap, or where the sum stood when the cap was lowered below it."""

    def sums(self, account: AccountId, index: int) -> tuple[int, int]:
        """(settled, held) of one metric, from the beginning of time."""
        ended = {hold for kind, hold, _, _ in self.facts if kind in {"settle", "void"}}
        settled = held = 0
        for kind, hold, drawn, amount in self.facts:
            takes = sum(amount[index] for leg in drawn if leg.account == account and leg.mask[index])
            if kind == "settle" and index != 4:
                settled += takes
            if kind == "reserve" and hold not in ended:
                held += takes
        return settled, held

    @rule(limits=st.tuples(caps, caps, caps))
    @precondition(lambda self: not self.caps)
    def open(self, limits: tuple[Amounts, ...]) -> None:
        """The budgets."""
        for account, cap in zip(ACCOUNTS, limits, strict=True):
            self.ledger.open_account(account, cap)
            self.caps[account] = cap
            self.highest[account] = list(cap)

    @rule(account=st.sampled_from(ACCOUNTS), cap=caps, soft=st.integers(0, 9), hard=st.booleans())
    @precondition(lambda self: self.caps)
    def b1_b10_caps_are_raised_or_lowered(self, account: AccountId, cap: Amounts, soft: int, hard: bool) -> None:
        """While holds are open: what stands above a lowered cap stays, and nothing new fits."""
        self.ledger.open_account(account, cap, Amounts(*[soft] * 5), hard=hard)
        self.caps[account], self.soft[account], self.hard[account] = cap, soft, hard
        self.highest[account] = [max(cap[index], sum(self.sums(account, index))) for index in range(5)]

    @rule(target=holds, drawn=legs, amount=amounts.filter(any))
    @precondition(lambda self: self.caps)
    def b1_b10_reserve(self, drawn: tuple[Leg, ...], amount: Amounts) -> HoldId:
        """Granted when, and only when, it fits at every leg and metric."""
        hold = HoldId(f"h{len(self.facts)}")
        fits = all(
            sum(self.sums(leg.account, index)) + amount[index] <= self.caps[leg.account][index]
            for leg in drawn
            for index in range(5)
            if leg.mask[index] and amount[index] and self.hard[leg.account]
        )
        answer = self.ledger.reserve(hold, drawn, amount)
        assert fits == isinstance(answer, Hold)
        if isinstance(answer, Shortfall):
            assert answer.wanted > answer.remaining
            self.facts.append(("refused", hold, drawn, amount))
        else:
            self.facts.append(("reserve", hold, drawn, amount))
            for leg in (leg for leg in drawn if not self.hard[leg.account]):
                sums = [sum(self.sums(leg.account, index)) for index in range(5)]
                self.highest[leg.account] = list(map(max, sums, self.highest[leg.account]))
        return hold

    @rule(hold=consumes(holds), part=st.integers(0, 100))
    def settle(self, hold: HoldId, part: int) -> None:
        """Charge a part of the hold, never more."""
        held = self.ledger.hold(hold)
        if held is not None:
            actual = Amounts(*(amount * part // 100 for amount in held.amounts))
            before = {leg.account: [self.sums(leg.account, index)[0] for index in range(5)] for leg in held.legs}
            settlement = self.endings[hold] = self.ledger.settle(hold, actual)
            self.facts.append(("settle", hold, held.legs, actual))
            expected = {
                (account, index)
                for account, was in before.items()
                for index in range(5)
                if was[index] <= self.soft[account] < self.sums(account, index)[0]
            }
            crossed = [(one.account, METRICS.index(one.metric)) for one in settlement.crossed]
            assert sorted(crossed) == sorted(expected), "a soft cap is told of once, when it is passed"

    @rule(hold=consumes(holds))
    def void(self, hold: HoldId) -> None:
        """Nothing was sent."""
        held = self.ledger.hold(hold)
        if held is not None:
            self.endings[hold] = self.ledger.void(hold)
            self.facts.append(("void", hold, held.legs, held.amounts))

    @rule(data=st.data(), amount=amounts, voids=st.booleans())
    @precondition(lambda self: self.endings)
    def b3_b7_end_again(self, data: st.DataObject, amount: Amounts, voids: bool) -> None:
        """A second ending of either kind changes nothing and gives the first result."""
        hold = data.draw(st.sampled_from(sorted(self.endings)))
        again = self.ledger.void(hold) if voids else self.ledger.settle(hold, amount)
        assert again == self.endings[hold]

    @rule()
    @precondition(lambda self: self.caps)
    def b7_b8_restart(self) -> None:
        """Put back what a store holds, in the reverse of the order it came in: the same sums."""
        fresh = Ledger()
        for account in self.ledger.accounts():
            fresh.restore_account(account.id, account.caps, account.settled, account.overage)
            fresh.open_account(account.id, account.caps, account.soft, hard=account.hard)
        for hold in reversed(list(self.ledger.holds())):
            fresh.restore_hold(hold)
        for hold in list(self.endings):
            # Ended holds are forgotten by a restart; the store drops them with their settlement.
            assert fresh.hold(hold) is None
        self.ledger, self.endings = fresh, {}

    @invariant()
    def b1_b2_b4(self) -> None:
        """The ledger's sums are the oracle's; caps hold; settled never falls; no overage."""
        for account_id in self.caps:
            account = self.ledger.account(account_id)
            for index in range(5):
                settled, held = self.sums(account_id, index)
                assert (settled, held) == (account.settled[index], account.held[index])
                assert settled + held <= self.highest[account_id][index]
                assert settled >= self.before.get(account_id, ZERO)[index]
            assert account.overage == ZERO
            assert all(free >= 0 for free in account.remaining())
            self.before[account_id] = account.settled

    def teardown(self) -> None:  # b9
        """B9: once all is ended nothing is held."""
        for hold in list(self.ledger.holds()):
            self.ledger.void(hold.id)
        assert all(account.held == ZERO for account in self.ledger.accounts())


TestLedgerAgainstOracle = LedgerAgainstOracle.TestCase
TestLedgerAgainstOracle.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
