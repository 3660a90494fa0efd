"""Compiles the open price source into our integer table. A development tool: the broker never imports it.

Run `make prices`. Owns what is taken over: text models of three vendors at their standard rates. Refuses rates that are
no whole number of pico-USD, and leaves out every model with another unit of charge (audio, pictures, own searches).
"""

import sys
import tomllib
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

_HERE: Final = Path(__file__).parent
_VENDORS: Final = {"anthropic": ("anthropic", ""), "openai": ("openai", ""), "gemini": ("google", "gemini-")}
_OTHER_UNITS: Final = [
    "audio",
    "cyber-preview",
    "computer-use",
    "dall-e",
    "deep-research",
    "extended",
    "ft:",
    "ft-",
    "image",
    "instruct",
    "live",
    "moderation",
    "nano-banana",
    "omni",
    "pro-vision",
    "realtime",
    "robotics",
    "rosalind",
    "search",
    "text-davinci",
    "transcribe",
    "tts",
    "vision",
    "whisper",
]
"""Parts of names of models that are not plain text models, or that charge for more than tokens."""
_OLD: Final = frozenset(("ada", "babbage", "curie", "davinci", "babbage-002", "davinci-002"))
_UNITS: Final = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write_5m": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
_REQUEST_UNITS: Final = {"web_search": "web_searches_kcount"}


def _pico(value: Decimal, per: int) -> int:
    """USD per `per` units to pico-USD per unit."""
    scaled = value * 10**12 / per
    if scaled != scaled.to_integral_value():
        message = f"{value} USD per {per} is no whole number of pico-USD"
        raise ValueError(message)
    return int(scaled)


def _rate(prices: Any, field: str, above: int, per: int) -> int | None:
    """The rate of one unit for a call whose input is just above a threshold; -1 for the base."""
    value = getattr(prices, field)
    if value is None:
        return None
    if hasattr(value, "tiers"):
        chosen = value.base
        for tier in value.tiers:
            if above >= tier.start:
                chosen = tier.price
        value = chosen
    return _pico(value, per)


def _rates(prices: Any, provider: str, above: int, derived: set[str]) -> dict[str, int]:
    rates = {name: _rate(prices, field, above, 10**6) for name, field in _UNITS.items()}
    rates |= {name: _rate(prices, field, above, 1000) for name, field in _REQUEST_UNITS.items()}
    known = {name: rate for name, rate in rates.items() if rate is not None}
    if provider == "anthropic" and "cache_write_5m" in known and "cache_write_1h" not in known:
        known["cache_write_1h"] = 2 * known["input"]  # documented: twice the base input price
        derived.add("cache_write_1h")
    if provider != "anthropic" and "output" in known:
        for name in ("cache_read", "cache_write_5m"):
            if name not in known and (name == "cache_read" or provider == "openai"):
                known[name] = known["input"]  # no price of its own: billed as input
                derived.add(name)
    return known


def _period(prices: Any, provider: str, from_ms: int, derived: set[str]) -> dict[str, Any]:
    starts = {
        tier.start
        for field in _UNITS.values()
        if hasattr(getattr(prices, field), "tiers")
        for tier in getattr(prices, field).tiers
    }
    period: dict[str, Any] = {"rates": _rates(prices, provider, -1, derived)}
    if from_ms:
        period["from_ms"] = from_ms
    if starts:
        period["tiers"] = [
            {"above": start, "rates": _rates(prices, provider, start, derived)} for start in sorted(starts)
        ]
    return period


def _periods(prices: Any, provider: str, today: date, derived: set[str]) -> list[dict[str, Any]]:
    """Today's price and the ones to come."""
    if not isinstance(prices, list):
        return [_period(prices, provider, 0, derived)]
    dated: list[tuple[date, Any]] = []
    for entry in prices:
        start = date.min if entry.constraint is None else entry.constraint.start_date
        dated.append((start, entry.prices))
    dated.sort(key=lambda pair: pair[0])
    past = [pair for pair in dated if pair[0] <= today]
    live = [(date.min, past[-1][1]), *(pair for pair in dated if pair[0] > today)]
    return [_period(found, provider, _ms(start), derived) for start, found in live]


def _ms(day: date) -> int:
    if day == date.min:
        return 0
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _equal_names(clause: Any) -> set[str]:
    """Names that the source matches exactly; its prefixes are not taken over."""
    if hasattr(clause, "equals"):
        return {clause.equals}
    names: set[str] = set()
    for part in getattr(clause, "or_", ()):
        names |= _equal_names(part)
    return names


def _wanted(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name not in _OLD and not any(part in name for part in _OTHER_UNITS)


def _model(model: Any, provider: str, limits: dict[str, int], today: date, taken: set[str]) -> dict[str, Any]:
    derived: set[str] = set()
    entry: dict[str, Any] = {"name": model.id, "periods": _periods(model.prices, provider, today, derived)}
    aliases = sorted(name for name in _equal_names(model.match) if name not in taken and _wanted(name, ""))
    taken.update(aliases)
    if aliases:
        entry["aliases"] = aliases
    if model.context_window and "output" in entry["periods"][0]["rates"]:
        entry["context"] = model.context_window  # an embedding's window is per text, not per call: left out
    if model.id in limits:
        entry["output"] = limits[model.id]
    if derived:
        entry["derived"] = sorted(derived)
    return entry


def table(today: date) -> dict[str, Any]:
    """The whole table as of a day."""
    from genai_prices import data  # noqa: PLC0415 - a heavy development dependency, needed here only

    limits = tomllib.loads((_HERE / "output_limits.toml").read_text())
    sources = {source.id: source for source in data.providers}
    providers: dict[str, list[dict[str, Any]]] = {}
    for provider, (source, prefix) in _VENDORS.items():
        models = [model for model in sources[source].models if _wanted(model.id, prefix)]
        taken = {model.id for model in models}
        known = limits.get(provider, {})
        unknown = set(known) - taken
        if unknown:
            message = f"output_limits.toml names models of {provider} that have no price: {sorted(unknown)}"
            raise ValueError(message)
        providers[provider] = [_model(model, provider, known, today, taken) for model in models]
    return {
        "source": f"genai-prices {version('genai-prices')} (MIT)",
        "generated": today.isoformat(),
        "providers": providers,
    }


def main() -> None:
    """Write the table; the day may be given, so that a table can be made again."""
    today = date.fromisoformat(sys.argv[1]) if len(sys.argv) > 1 else datetime.now(UTC).date()
    encoded = msgspec.json.format(msgspec.json.encode(table(today)), indent=1)
    (_HERE / "table.json").write_bytes(encoded + b"\n")


if __name__ == "__main__":
    main()
