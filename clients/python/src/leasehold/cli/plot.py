"""A bar chart as SVG: one bar a day, stacked by group. Owns scales, colours and escaping; draws money in USD."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from xml.sax.saxutils import escape

from leasehold._amounts import usd

WIDTH, HEIGHT = 960, 400
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 56, 56
SERIES_MAX = 8
DAYS_MAX = 400
REST = "others"
LABELS_MAX = 12
NAME_MAX = 28
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f", "#bbbbbb")
"""Told apart by people who see few colours (Okabe and Ito), grey last."""


def spend_svg(title: str, costs: Mapping[tuple[str, str], int]) -> str:
    """The chart.

    Args:
        title: above it.
        costs: micro-USD by (day as YYYY-MM-DD, name of the group); days between are drawn empty.
    """
    days = _days(sorted({day for day, _ in costs}))
    names = _names(costs)
    stacks = {day: _stack(day, names, costs) for day in days}
    top = _nice(max((sum(stack) for stack in stacks.values()), default=0))
    height = HEIGHT + 20 * len(names) + 12
    box = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="28" font-size="16" font-weight="600">{escape(title)}</text>',
        *_axis(top),
        *_bars(days, names, stacks, top),
        *_legend(names, costs),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _days(found: Sequence[str]) -> list[str]:
    if not found:
        return []
    last = date.fromisoformat(found[-1])
    first = max(date.fromisoformat(found[0]), last - timedelta(days=DAYS_MAX - 1))
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def _names(costs: Mapping[tuple[str, str], int]) -> list[str]:
    totals: dict[str, int] = {}
    for (_, name), cost in costs.items():
        totals[name] = totals.get(name, 0) + cost
    ranked = sorted(totals, key=lambda name: (-totals[name], name))
    return ranked if len(ranked) <= SERIES_MAX else [*ranked[: SERIES_MAX - 1], REST]


def _stack(day: str, names: Sequence[str], costs: Mapping[tuple[str, str], int]) -> list[int]:
    heights = dict.fromkeys(names, 0)
    for (found, name), cost in costs.items():
        if found == day:
            heights[name if name in heights else REST] += cost
    return list(heights.values())


def _nice(highest: int) -> int:
    """The smallest of 1, 2, 4, 6 or 8 times a power of ten that is not below; in micro-USD, at least one."""
    step = 1
    while True:
        for factor in (1, 2, 4, 6, 8):
            if factor * step >= highest:
                return factor * step
        step *= 10


def _y(cost: int, top: int) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * cost / top


def _axis(top: int) -> list[str]:
    parts = []
    for part in range(5):
        cost = top * part // 4
        y = _y(cost, top)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{usd(cost)}</text>')
    parts.append(f'<text x="{LEFT - 8}" y="{TOP - 14}" text-anchor="end" fill="#666">USD</text>')
    return parts


def _bars(days: Sequence[str], names: Sequence[str], stacks: Mapping[str, Sequence[int]], top: int) -> list[str]:
    parts = []
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(days))
    width = min(72.0, slot * 0.72)
    every = -(-len(days) // LABELS_MAX) or 1
    for number, day in enumerate(days):
        x = LEFT + slot * number + (slot - width) / 2
        below = 0
        for name, colour, cost in zip(names, _COLOURS, stacks[day], strict=False):
            if cost:
                y = _y(below + cost, top)
                height = _y(below, top) - y
                parts.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}">'
                    f"<title>{escape(f'{day}  {name}: {usd(cost)} USD')}</title></rect>"
                )
                below += cost
        if number % every == 0:
            middle = x + width / 2
            parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{day[5:]}</text>')
    if days:
        parts.append(f'<text x="{LEFT}" y="{HEIGHT - BOTTOM + 38}" fill="#666">{days[0]} to {days[-1]}, UTC</text>')
    else:
        parts.append(f'<text x="{LEFT + 12}" y="{TOP + 24}" fill="#666">nothing was spent</text>')
    return parts


def _legend(names: Sequence[str], costs: Mapping[tuple[str, str], int]) -> list[str]:
    parts = []
    listed = set(names)
    for number, (name, colour) in enumerate(zip(names, _COLOURS, strict=False)):
        y = HEIGHT + 20 * number + 8
        total = sum(
            cost for (_, found), cost in costs.items() if found == name or (name == REST and found not in listed)
        )
        shown = name if len(name) <= 3 * NAME_MAX else name[: 3 * NAME_MAX - 1] + "…"
        parts.append(f'<rect x="{LEFT}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 20}" y="{y}">{escape(shown)}</text>')
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{y}" text-anchor="end">{usd(total)}</text>')
    return parts
