"""Sinks are tested on the loop that they run on."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test of this room runs on uvloop, as the collector does: it lacks some of what asyncio's loop has."""
    return {"uvloop": uvloop.new_event_loop}
