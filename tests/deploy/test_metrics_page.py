"""What operators are told to watch is what the processes show, under that very name."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WIRING = ROOT / "broker" / "leasehold_broker" / "wiring"
PAGES = sorted(
    path
    for folder in ("deploy", "broker/decisions", ".")
    for path in (ROOT / folder).glob("**/*.md" if folder == "deploy" else "*.md")
)
METRIC = re.compile(r"`(?:[^`]*\b)?(leasehold_(?!broker)[a-z_]+)")


@functools.cache
def shown() -> frozenset[str]:
    """Names of all metrics, as they are scraped."""
    return frozenset(
        f"leasehold_{call.args[0].value}" + ("_total" if any(one.arg == "counter" for one in call.keywords) else "")
        for path in WIRING.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Sample"
    )


def test_the_page_names_every_metric():
    """None is missing, none is there that no process shows."""
    page = (ROOT / "deploy" / "runbooks" / "metrics.md").read_text()
    assert sorted(set(re.findall(r"leasehold_[a-z_]+", page))) == sorted(shown())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_names_metrics_as_they_are_scraped(page):
    """An alert on a counter without its "_total" would never fire."""
    assert set(METRIC.findall(page.read_text())) - shown() == set()
