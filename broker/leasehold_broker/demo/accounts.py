"""The reckoning: what the audit log says was charged, against caps and against the stand-in's own book.

Two independent witnesses: the broker's exported events, and what the stand-in really served. Owns reading both; decides
nothing.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leasehold.audit import Record
from leasehold_broker.domain.price import Usage, cost_micro_usd
from leasehold_broker.providers import load_price_book

UNITS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
"""Names of what is billed by the token: in events, in the book, and in the order of `Usage`."""
FREE = frozenset(("count_tokens", "models.list", "models.get"))


@dataclass(slots=True)
class LeaseAccount:
    """One lease as the audit log tells it; amounts in micro-USD."""

    name: str
    subject: str
    parent: str
    cap: int | None
    calls: int = 0
    refused: int = 0
    spent: int = 0
    state: str = "active"


@dataclass(slots=True)
class Call:
    """One settled call as the audit log tells it."""

    lease: str
    provider: str
    model: str
    end: str
    charged: int
    estimated: bool
    usage: tuple[int, ...]


@dataclass(slots=True)
class Accounts:
    """Everything that the exported log says about money."""

    leases: dict[str, LeaseAccount] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)

    def of_tree(self, name: str) -> int:
        """Spent by a lease and those delegated from it."""
        return sum(lease.spent for lease in self.leases.values() if name in {lease.name, lease.parent})


def read_export(path: Path) -> Accounts:
    """An export of `leasehold audit export`."""
    accounts = Accounts()
    admitted: dict[str, Mapping[str, Any]] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            event = Record.of_line(line, number).event()
            accounts.events[event["type"]] += 1
            _count(accounts, admitted, event)
    return accounts


def _count(accounts: Accounts, admitted: dict[str, Mapping[str, Any]], event: Mapping[str, Any]) -> None:
    kind, details = event["type"], event.get("details", {})
    name = event.get("lease", "")
    lease = accounts.leases.get(name)
    if kind in {"lease.acquired", "lease.delegated"}:
        cap = details["caps"].get("cost_micro_usd")
        subject = event["subject"]["subject"]
        accounts.leases[name] = LeaseAccount(name, subject, details["parent"], cap)
    elif kind == "call.admitted":
        admitted[details["call"]] = details
    elif kind == "call.settled" and lease is not None:
        plan, charged = admitted[details["call"]], details["charged"].get("cost_micro_usd", 0)
        lease.calls += 1
        lease.spent += charged
        usage = details.get("usage", {})
        read = tuple(usage.get(unit, 0) for unit in UNITS)
        accounts.calls.append(
            Call(
                name,
                plan["provider"],
                plan.get("model", ""),
                details["end"],
                charged,
                bool(details.get("estimated", False)),
                read,
            )
        )
    elif kind == "call.refused" and lease is not None:
        lease.refused += 1
    elif kind in {"lease.released", "lease.revoked", "lease.expired"} and lease is not None:
        lease.state = kind.removeprefix("lease.")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model: what was charged, against what was served."""

    provider: str
    model: str
    calls: int
    charged: int
    served: int
    call_by_call: bool


def compare(accounts: Accounts, book: Iterable[Mapping[str, Any]]) -> list[Comparison]:
    """Calls that ended normally, by model; `call_by_call` when the two witnesses agree on every single call.

    An SDK may hang up behind the last event, before the end of the answer: then the usage is known all the same.
    """
    charged: dict[tuple[str, str], Counter[tuple[int, tuple[int, ...]]]] = {}
    served: dict[tuple[str, str], Counter[tuple[int, tuple[int, ...]]]] = {}
    for call in accounts.calls:
        if call.end in ("finished", "client_gone") and not call.estimated and call.usage != (0, 0, 0, 0, 0):
            charged.setdefault((call.provider, call.model), Counter())[call.charged, call.usage] += 1
    for each in book:
        if each["ended"] == "complete" and each["operation"] not in FREE:
            of_model = served.setdefault((each["provider"], each["model"]), Counter())
            of_model[cost_of(each), tuple(each["tokens"][unit] for unit in UNITS)] += 1
    return [
        Comparison(
            provider,
            model,
            sum(of_model.values()),
            sum(cost * count for (cost, _), count in charged.get((provider, model), Counter()).items()),
            sum(cost * count for (cost, _), count in of_model.items()),
            charged.get((provider, model)) == of_model,
        )
        for (provider, model), of_model in sorted(served.items())
    ]


def cost_of(served: Mapping[str, Any]) -> int:
    """What a call of the book costs by the price table, in micro-USD.

    Raises:
        LookupError: the table has no such model.
    """
    price = load_price_book(None).price(served["provider"], served["model"])
    if price is None:
        raise LookupError(served["model"])
    return cost_micro_usd(Usage(*(served["tokens"][unit] for unit in UNITS)), price)


def read_book(path: Path) -> list[dict[str, Any]]:
    """The stand-in's book; empty when it served nothing."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def shortened(export: Path, copy: Path, missing: int) -> None:
    """Write a copy without its last entries."""
    lines = export.read_text(encoding="utf-8").splitlines(keepends=True)
    copy.write_text("".join(lines[:-missing]), encoding="utf-8")


def tampered(export: Path, copy: Path) -> str:
    """Write a copy in which one charge was made smaller; returns what was changed, in words."""
    lines = export.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        record = json.loads(line)
        event = json.loads(record["body"])
        charged = event.get("details", {}).get("charged", {}).get("cost_micro_usd", 0)
        if event["type"] == "call.settled" and charged > 1:
            event["details"]["charged"]["cost_micro_usd"] = 1
            record["body"] = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            lines[number] = json.dumps(record, separators=(",", ":"))
            copy.write_text("\n".join(lines) + "\n", encoding="utf-8")
            return f"line {number + 1}: a charge of {charged} micro-USD is now 1"
    message = "the export has no charge to tamper with"
    raise ValueError(message)
