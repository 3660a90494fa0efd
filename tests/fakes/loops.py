"""The event loop that our processes run on, for the rooms whose tests run on it."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Import it in a room's conftest: uvloop's transports write at other times than asyncio's, and it lacks calls."""
    return {"uvloop": uvloop.new_event_loop}
