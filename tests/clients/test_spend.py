"""What was spent, summed from the log, and its chart."""

import json
from xml.etree import ElementTree as ET

import pytest

from leasehold import InvalidRequest
from leasehold.audit import Record
from leasehold.cli.plot import REST, SERIES_MAX, spend_svg
from leasehold.spend import UNKNOWN, Spent, spent_by

DAY_MS = 86_400_000
WALL_MS = 1_763_900_000_000  # 2025-11-23
SVG = "{http://www.w3.org/2000/svg}"


def event(kind: str, call: str, subject: str = "agent-1", day: int = 0, **details) -> Record:
    """One event of a call."""
    body = {
        "type": kind,
        "wall_ms": WALL_MS + day * DAY_MS,
        "lease": "leases/a",
        "subject": {"subject": subject},
        "details": {"call": call, **details},
    }
    return Record(1, "sidecar-a", "e1", 1, b"", b"", json.dumps(body).encode())


def settled(call: str, cost: int, **more) -> Record:
    """A call that was charged."""
    charged = {"cost_micro_usd": cost, "input_tokens": 10, "output_tokens": 5}
    return event("call.settled", call, **({"charged": charged, "key": "k1", "model": "m1"} | more))


def test_sums_are_by_group_and_largest_first():
    """Money, tokens, calls and estimates add up by subject, model and day; what was voided is not counted."""
    log = [
        settled("1", 100),
        settled("2", 50, estimated=True),
        settled("3", 700, subject="agent-2", model="m2", day=1),
        settled("4", 9, charged={}, voided=True),
        event("call.refused", "5"),
    ]
    assert spent_by(log, ("subject", "model")) == {
        ("agent-2", "m2"): Spent(700, 10, 5, 1, 0, 1),
        ("agent-1", "m1"): Spent(150, 20, 10, 2, 1, 2),
    }
    assert list(spent_by(log, ("day",))) == [("2025-11-24",), ("2025-11-23",)]
    assert spent_by(log, ()) == {(): Spent(850, 30, 15, 3, 1, 3)}


def test_a_call_that_a_crash_cut_off_is_found_by_its_admission():
    """Recovery knows no key or model; the admission does. Without it the sum stands all the same."""
    cut = event("call.settled", "1", charged={"cost_micro_usd": 9}, estimated=True)
    admitted = event("call.admitted", "1", key="k9", model="m9")
    assert list(spent_by([admitted, cut], ("key", "model"))) == [("k9", "m9")]
    assert spent_by([cut], ("key",))[UNKNOWN,].cost_micro_usd == 9


def test_an_unknown_group_is_an_error():
    """A misspelt group sums nothing."""
    with pytest.raises(InvalidRequest, match="give some of subject"):
        spent_by([], ("team",))


def bars(svg: str) -> dict[str, float]:
    """Height of every bar by its title."""
    found = {}
    for rect in ET.fromstring(svg).iter(f"{SVG}rect"):
        title = rect.find(f"{SVG}title")
        if title is not None:
            found[title.text] = float(rect.get("height"))
    return found


def test_bars_are_as_high_as_what_was_spent():
    """Heights are in proportion over days and groups, days without spending are empty, and names are only text."""
    drawn = bars(spend_svg("Spent by <model>", {("2026-11-01", "<m>&"): 2_000_000, ("2026-11-03", "b"): 1_000_000}))
    assert list(drawn) == ["2026-11-01  <m>&: 2.00 USD", "2026-11-03  b: 1.00 USD"]
    first, second = drawn.values()
    assert first == pytest.approx(2 * second, abs=0.2)


def test_many_groups_are_folded_and_nothing_is_lost():
    """The smallest groups become one; the sum of the legend is the sum of all."""
    svg = spend_svg("Spent", {("2026-11-01", f"group {n:02}"): 1_000_000 * (n + 1) for n in range(20)})
    assert len(bars(svg)) == SERIES_MAX
    assert f"2026-11-01  {REST}: 91.00 USD" in bars(svg)


def test_nothing_spent_is_said():
    """An empty chart is a chart."""
    assert "nothing was spent" in spend_svg("Spent", {})
