"""Connections that are turned away are told in sums: a flood of them is no flood of lines."""

import asyncio

import pytest
from structlog.testing import capture_logs

from leasehold_broker.adapters.accept_pipe import TurnedAway


async def test_a_flood_of_connections_is_one_line_in_the_log() -> None:
    """Connections that are turned away are told in sums, at the latest when the shim stops."""
    with capture_logs() as lines:
        turned_away = TurnedAway()
        for count in range(1000):
            turned_away.add("connections_max", f"uid:{count % 7}")
        turned_away.add("header block too long", "uid:1")
        assert lines == []
        turned_away.tell()
        turned_away.tell()
    told = {line["why"]: (line["count"], line["last_peer"]) for line in lines}
    assert told == {"connections_max": (1000, "uid:5"), "header block too long": (1, "uid:1")}
    assert len(lines) == 2


async def test_sums_are_told_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second after the first that was turned away, without another one."""
    monkeypatch.setattr("leasehold_broker.adapters.accept_pipe.TELL_SECONDS", 0.0)
    with capture_logs() as lines:
        TurnedAway().add("connections_max", "")
        async with asyncio.timeout(240):
            while not lines:  # noqa: ASYNC110 - the log tells nobody
                await asyncio.sleep(0)
    assert [(line["why"], line["count"]) for line in lines] == [("connections_max", 1)]
