"""The egress is tested on the loop that it runs on."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test of this room runs on uvloop, as the sidecar does."""
    return {"uvloop": uvloop.new_event_loop}
