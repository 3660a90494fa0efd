"""An independent reader of the audit log: what was settled, held and granted, from events alone (A7).

Written against the events' own words, not against the ledger's code: a list of facts, summed naively.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

METRIC_NAMES = ("cost_micro_usd", "input_tokens", "output_tokens", "requests", "concurrency")
ENDINGS = {"lease.expired", "lease.released", "lease.revoked"}


def vector(details: dict) -> list[int]:
    """Amounts by metric name, as a list in the order of the masks."""
    return [details.get(name, 0) for name in METRIC_NAMES]


@dataclass
class Replay:
    """What the log says so far. Applying an event twice changes nothing (B7)."""

    holds: dict[str, tuple[list, list[int]]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    settled: dict[str, list[int]] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    epoch: int = 0
    warnings: dict[str, dict[str, int]] = field(default_factory=dict)

    def apply(self, kind: str, lease: str, details: dict) -> None:
        """Take one event."""
        if kind == "call.admitted":
            self._open(details["call"], details["budgets"], details["held"])
        elif kind == "call.settled":
            self._close(details["call"], None if details.get("voided") else details["charged"])
        elif kind == "budget.returned":
            self._close(details["carve"], details["charged"])
        elif kind in {"lease.acquired", "lease.delegated"}:
            if lease not in self.ended:
                self.live.setdefault(lease, details["expire_wall_ms"])
            if "carve" in details:
                self._open(details["carve"], details["carved_from"], details["carved"])
        elif kind == "lease.renewed" and lease in self.live:
            self.live[lease] = details["expire_wall_ms"]
        elif kind in ENDINGS:
            self.live.pop(lease, None)
            self.ended.add(lease)
        elif kind.startswith("revocation."):
            self._revocation(kind, details)

    def _revocation(self, kind: str, details: dict) -> None:
        if kind == "revocation.applied":
            self.epoch = max(self.epoch, details["epoch"])
        elif kind == "revocation.set_aside":
            self.epoch = details["agreed_epoch"]

    def warn(self, details: dict) -> None:
        """Take a warning: in one metric of one account it comes later only with more settled."""
        known = self.warnings.setdefault(details["account"], {})
        assert details["settled"] >= known.get(details["metric"], 0), "what is settled never falls"
        known[details["metric"]] = details["settled"]

    def _open(self, hold: str, legs: list, amounts: dict) -> None:
        if hold not in self.closed:
            self.holds[hold] = (legs, vector(amounts))

    def _close(self, hold: str, charged: dict | None) -> None:
        if hold in self.closed:
            return
        self.closed.add(hold)
        if hold not in self.holds:
            # A lease that ended while its first commit was still being refused: it never had anything to spend.
            assert not charged, f"{hold} was charged but never opened"
            return
        legs, _ = self.holds.pop(hold)
        for account, mask in legs if charged is not None else ():
            sums = self.settled.setdefault(account, [0] * 5)
            for index, amount in enumerate(vector(charged)):
                sums[index] += amount if mask[index] == "1" else 0

    def held(self, account: str) -> list[int]:
        """What the open holds take of one account, summed from scratch."""
        sums = [0] * 5
        for legs, amounts in self.holds.values():
            for name, mask in legs:
                if name == account:
                    sums = [one + (more if on == "1" else 0) for one, more, on in zip(sums, amounts, mask, strict=True)]
        return sums


def replayed(events: Iterable) -> Replay:
    """The state after these domain events, each applied twice."""
    found = Replay()
    for event in events:
        for _ in range(2):
            found.apply(event.type.value, event.lease, dict(event.details))
        if event.type.value == "budget.threshold" and "rolling-" not in event.details["account"].rsplit("|", 1)[-1]:
            found.warn(dict(event.details))
    return found
