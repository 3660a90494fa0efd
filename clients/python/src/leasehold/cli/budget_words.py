"""How budgets are printed: amounts in their unit, names that cannot move a cursor, fleet budgets with their slices."""

from typing import Any

from leasehold._amounts import usd
from leasehold.cli.options import printable, table
from leasehold.v1 import budget_service_pb2 as budget

COST = "cost_micro_usd"


def amount(metric: str, value: int) -> str:
    """In the metric's unit; money in USD, and below zero too."""
    if metric != COST:
        return str(value)
    return f"{usd(value)} USD" if value >= 0 else f"-{usd(-value)} USD"


def fleet_words(one: budget.FleetBudget) -> list[str]:
    """A budget over all sidecars, and what each life of each of them holds of it."""
    metric = one.metric
    reset = f", starts anew {one.reset_time.ToJsonString()}" if one.HasField("reset_time") else ""
    lines = [
        "",
        printable(
            f"{one.budget} {metric}: cap {amount(metric, one.cap)}{' (changed)' if one.changed else ''}, "
            f"free {amount(metric, one.free)}, with sidecars {amount(metric, one.outstanding)}, "
            f"spent {amount(metric, one.spent)}, written off {amount(metric, one.written_off)}{reset}"
        ),
    ]
    if one.slices:
        rows: list[tuple[str, ...]] = [
            ("SIDECAR", "SLICE", "STATE", "GRANTED", "RETURNED", "SPENT", "HELD", "WRITTEN OFF")
        ]
        for each in one.slices:
            amounts = (each.granted, each.returned, each.spent, each.held, each.written_off)
            rows.append(
                (printable(each.sidecar), str(each.fence), printable(each.state), *(amount(metric, v) for v in amounts))
            )
        lines.append(table(rows))
    if one.slices_total > len(one.slices):
        lines.append(f"and {one.slices_total - len(one.slices)} slices more, of which less is out")
    return lines


def fleet_dict(one: budget.FleetBudget) -> dict[str, Any]:
    """The same for programs; `sidecar` is empty, as the budget is nobody's alone."""
    return {
        "sidecar": "",
        "budget": one.budget,
        "metric": one.metric,
        "cap": one.cap,
        "free": one.free,
        "outstanding": one.outstanding,
        "spent": one.spent,
        "written_off": one.written_off,
        "changed": one.changed,
        "reset_time": one.reset_time.ToJsonString() if one.HasField("reset_time") else None,
        "slices": [
            {
                "sidecar": each.sidecar,
                "fence": each.fence,
                "state": each.state,
                "granted": each.granted,
                "returned": each.returned,
                "spent": each.spent,
                "held": each.held,
                "written_off": each.written_off,
            }
            for each in one.slices
        ],
    }
