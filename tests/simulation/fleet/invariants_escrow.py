"""E1 to E9: what was really drawn on every slice, by whatever process, held against grants, returns and time."""

from collections import Counter, OrderedDict, defaultdict
from typing import Any

import msgspec
from tests.simulation.fleet.centre_books import CentreBooks
from tests.simulation.fleet.loop import NANOS

from leasehold_broker.domain.amounts import METRICS
from leasehold_broker.domain.ledger import AccountId, Ledger
from leasehold_broker.domain.slice import OwnSlice
from leasehold_broker.domain.windows import Rolling
from leasehold_broker.flows.escrow_windows import counted_ms
from leasehold_broker.flows.slices import SLICE_PREFIX, is_slice

GRANTED, RETURNED, WRITTEN_OFF = "budget.slice_granted", "budget.slice_returned", "budget.slice_written_off"
DECIDED_NS = 50_000_000
"""A call is decided at most so long before it may be sent: a few commits."""


def fence_of(account: str) -> int:
    """Of the slice that an account is."""
    return int(account.removeprefix("slice:").partition("|")[0])


class RollingTruth:
    """E2 of a budget that rolls, in true time and without its buckets: of any span that ends now."""

    def __init__(self, settings: Any) -> None:
        """Nothing is drawn; of a calendar budget nothing is looked at."""
        self._span_ns = settings.period.seconds * NANOS if isinstance(settings.period, Rolling) else 0
        self._entries: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """By call: when it was admitted, and what it has drawn."""
        self._drawn = 0
        self.cap_most = settings.cap
        """The highest that was ever in force."""
        self.clock_set = False
        """The centre's wall clock was set: after a restart it counts from there, and nobody can know better."""

    def admitted(self, call: str, amount: int, now_ns: int) -> None:
        """A hold became durable."""
        if not self._span_ns:
            return
        self._entries[call] = now_ns, amount
        self._drawn += amount
        while (oldest := next(iter(self._entries.values())))[0] <= now_ns - self._span_ns:
            self._drawn -= oldest[1]
            self._entries.popitem(last=False)
        assert self._drawn <= self.cap_most or self.clock_set, (
            f"E2: {self._drawn} of {self.cap_most} are drawn within {self._span_ns // NANOS} s"
        )

    def settled(self, call: str, amount: int) -> None:
        """It took so much of its hold."""
        if call in self._entries:
            admitted_ns, held = self._entries[call]
            self._drawn += amount - held
            self._entries[call] = admitted_ns, amount


class EscrowTruth:
    """Omniscient sums, by fence."""

    def __init__(self, world: Any, seen: Counter[str]) -> None:
        """Nothing is granted."""
        self._world = world
        self._seen = seen
        self.drawn: defaultdict[int, int] = defaultdict(int)
        self.granted: defaultdict[int, int] = defaultdict(int)
        self.returned: defaultdict[int, int] = defaultdict(int)
        self.written_off: set[int] = set()
        self.said_returned: defaultdict[int, int] = defaultdict(int)
        self._window_of: dict[int, tuple[str, str, int]] = {}
        self._drawn_in: Counter[tuple[str, str, int]] = Counter()
        self._rights_in: Counter[tuple[str, str, int]] = Counter()
        self._rights_of: Counter[tuple[str, tuple[str, str, int]]] = Counter()
        self._calls: dict[str, tuple[str, str, list[tuple[int, int, int]]]] = {}
        self.holder: dict[int, str] = {}
        self._places: dict[int, tuple[AccountId, int]] = {}
        """Of each fence its account, and where in amounts its metric is."""
        self.cap_most: dict[tuple[str, str, int], int] = {}
        self.copied: set[int] = set()
        """Slices of which a second process may tell: reports of both are the centre's to reconcile (E4)."""
        self.centre = CentreBooks(self, seen)
        self.rolling = RollingTruth(world.settings)

    # From the collector's durable log.

    def record(self, body: bytes) -> None:
        """An event of the collector became durable."""
        if b"budget.slice_" not in body:
            return
        event = msgspec.json.decode(body)
        details = event["details"]
        fence, amount = details["fence"], details["amount"]
        window = details["budget"], details["metric"], details["window_start_wall_ms"]
        if event["type"] == GRANTED:
            self.granted[fence] += amount
            self._rights_in[window] += amount
            self._window_of[fence] = window
            self.holder[fence] = details["sidecar"]
            self._seen["granted"] += 1
            assert fence not in self.written_off, f"E6: slice {fence} was granted to after it was written off"
            self._within_cap(window)
            self._rights_of[details["sidecar"], window] += amount
            self._within_share(details["sidecar"], window)
        elif event["type"] == RETURNED:
            self.returned[fence] += amount
            self._rights_in[window] -= amount
            self._rights_of[details["sidecar"], window] -= amount
            self._seen["returned"] += 1
            if fence not in self.copied:
                assert self.returned[fence] <= self.said_returned[fence], f"E5: slice {fence}: more than was returned"
        elif event["type"] == WRITTEN_OFF:
            self._written_off(fence)

    def _within_cap(self, window: tuple[str, str, int]) -> None:
        most = self.cap_most.get(window)
        assert most is None or self._rights_in[window] <= most, (
            f"E1: {self._rights_in[window]} of {most} are granted in {window}"
        )

    def _within_share(self, sidecar: str, window: tuple[str, str, int]) -> None:
        settings, most = self._world.settings, self.cap_most.get(window)
        if most is None or settings.sidecar_percent_max == 100 or window[0] != settings.main_budget.name:
            return
        right = self._rights_of[sidecar, window]
        if isinstance(settings.period, Rolling):
            most = self.rolling.cap_most  # a bucket's own cap is what the others leave
            # Of the buckets before this one those that count for as long as it runs.
            counted_from = window[2] + settings.period.bucket_ms - counted_ms(settings.period)
            right = sum(
                amount
                for (holder, (name, metric, start_ms)), amount in self._rights_of.items()
                if (holder, name, metric) == (sidecar, window[0], window[1]) and counted_from <= start_ms <= window[2]
            )
        share = most * settings.sidecar_percent_max // 100
        assert right <= share, f"{sidecar} was granted {right} of {window}, more than its share of {share}"
        self._seen["share of one used up"] += right == share

    def _written_off(self, fence: int) -> None:
        self.written_off.add(fence)
        self._seen["written off"] += 1
        if self.holder[fence] in self._world.operators.ever_banned:
            self._seen["written off at a ban"] += 1
            return  # at once, as spent: nothing becomes free, whatever its holder still spends
        now = self._world.now_ns()
        for sidecar in self._world.sidecars:
            if not sidecar.process.dead:
                until = self._world.revocations.heard[sidecar.process].slices_ns.get(fence, 0)
                own = self._own(sidecar, fence) if sidecar.ready else None
                spends = own is not None and own.cap(sidecar.clock.now().boot_ns) > 0
                assert not (spends and until > now), (
                    f"E6: slice {fence} was written off while {sidecar.name} may spend it"
                )

    def caps(self, windows: Any) -> None:
        """Note the largest cap that each window ever had: what was granted under it was right."""
        for running in windows:
            window = running.budget.name, running.metric.value, running.window.start_ms
            self.cap_most[window] = max(self.cap_most.get(window, 0), running.escrow.cap)

    # From sidecars.

    def said(self, reports: Any) -> None:
        """A process tells of its slices: returns only grow."""
        for report in reports:
            self.said_returned[report.fence] = max(self.said_returned[report.fence], report.returned)

    def emitted(self, stream: str, life: str, event: dict[str, Any]) -> None:
        """An event of a sidecar became durable: from a hold on, its amount is drawn, whatever becomes of the process.

        Only the life that carried a call knows what it took; what another life charges for it is the hold, in full.
        """
        kind, details = event["type"], event.get("details", {})
        if kind == "call.admitted":
            held = [details["held"].get(name, 0) for name in METRICS]
            legs = [
                (fence_of(account), index, held[index])
                for account, mask in details["budgets"]
                if is_slice(account)
                for index, on in enumerate(mask)
                if on == "1"
            ]
            assert legs, "E2: a call that a fleet budget counts drew on no slice"
            self._calls[details["call"]] = (stream, life, legs)
            for fence, _, amount in legs:
                self._draw(fence, amount)
                if self._window_of[fence][0] == self._world.settings.main_budget.name:
                    self.rolling.admitted(details["call"], amount, self._world.now_ns())
        elif kind == "call.settled":
            carried = self._calls.get(details["call"])
            if carried is not None and carried[:2] == (stream, life):
                charged = details.get("charged", {}) if not details.get("voided") else {}
                for fence, index, held in self._calls.pop(details["call"])[2]:
                    self._draw(fence, charged.get(METRICS[index], 0) - held)
                    if self._window_of[fence][0] == self._world.settings.main_budget.name:
                        self.rolling.settled(details["call"], charged.get(METRICS[index], 0))

    def _draw(self, fence: int, amount: int) -> None:
        window = self._window_of.get(fence)
        assert window is not None, f"E1: slice {fence} is spent, which is not durable at the centre"
        self.drawn[fence] += amount
        self._drawn_in[window] += amount
        right = self.granted[fence] - self.said_returned[fence]
        assert fence in self.copied or self.drawn[fence] <= right, (
            f"E3, E5: {self.drawn[fence]} drawn on slice {fence} of {self.granted[fence]} granted, "
            f"{self.said_returned[fence]} returned"
        )
        if amount > 0:
            self.within(window)
        elif amount < 0:
            self.centre.drawn_less(fence)

    def admitted(self, sidecar: Any, hold: Any) -> None:
        """A call may be sent: its slices were good when it was decided (E9)."""
        now = self._world.now_ns() - DECIDED_NS
        for leg in hold.legs:
            if is_slice(leg.account):
                fence = fence_of(leg.account)
                until = self._world.revocations.heard[sidecar.process].slices_ns.get(fence, 0)
                assert until >= now, f"E9: slice {fence} was spent {(now - until) / NANOS:.2f} s after its end"

    def within(self, window: tuple[str, str, int]) -> None:
        """E2: whatever was lost, copied or put back, no more is drawn than the cap."""
        most = self.cap_most.get(window)
        assert most is None or self._drawn_in[window] <= most, f"E2: {self._drawn_in[window]} of {most} are drawn"
        if self._drawn_in[window] == most:
            self._seen["last unit spent"] += 1

    # After a step.

    def look(self, sidecar: Any) -> None:
        """E3: at this sidecar."""
        slices, ledger = sidecar.core.books.slices, sidecar.core.books.ledger
        for known in slices._known.values():
            if known.own is not None:
                self._within_right(sidecar, ledger, known.own)
        for over in slices._over.values():
            if over.ours:
                self._within_right(sidecar, ledger, over.own)

    def _within_right(self, sidecar: Any, ledger: Ledger, own: OwnSlice) -> None:
        place = self._places.get(own.fence)
        if place is None:
            name = AccountId(f"{SLICE_PREFIX}{own.fence}|{own.budget}|{own.metric}")
            place = self._places[own.fence] = name, METRICS.index(own.metric)
        account = ledger.account(place[0])
        if account is not None:
            drawn = account.settled[place[1]] + account.held[place[1]]
            assert drawn <= own.granted - own.returned, f"E3: {sidecar.name} {own}, drawn {drawn}"

    @staticmethod
    def _own(sidecar: Any, fence: int) -> Any:
        for known in sidecar.core.books.slices._known.values():
            if known.own is not None and known.own.fence == fence:
                return known.own
        return None
