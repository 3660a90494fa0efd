"""The event loop that our processes run on, for the rooms whose tests run on it."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop

HUNG_UP = (OSError, RuntimeError)
"""What a write to a peer that has hung up may raise: once its transport is closed, uvloop says so by a RuntimeError."""


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Import it in a room's conftest: uvloop's transports write at other times than asyncio's, and it lacks calls."""
    return {"uvloop": uvloop.new_event_loop}
