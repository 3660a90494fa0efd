"""Pages that go on: server-sent events. Owns their pace, their heartbeat, and that they end with the session."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

from aiohttp import web

from leasehold_broker.console.parts import SignedOutError, Visit
from leasehold_broker.domain.reasons import Refusal

PACE_SECONDS = 0.5
ALIVE_SECONDS = 10.0
WRITE_SECONDS_MAX = 15.0


class Picture(Protocol):
    """What a stream shows: it takes answers, and can be drawn whole at any time."""

    def take(self, answer: Any) -> None:
        """One more answer."""
        ...

    def draw(self) -> tuple[str, str]:
        """The fragment as it is now, and the id after which to go on; "" for none."""
        ...

    @property
    def complete(self) -> bool:
        """Nothing more will come."""
        ...


async def stream(
    request: web.Request,
    visit: Visit,
    answers: AsyncGenerator[Any],
    picture: Picture,
    streaming: Callable[[asyncio.BaseTransport | None], None],
) -> web.StreamResponse:
    """Send the picture whole at each change, twice a second at most, until it is complete or the session is over."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    streaming(request.transport)
    changed = asyncio.Event()
    pump = asyncio.create_task(_pump(answers, picture, changed))
    try:
        await _show(response, visit, picture, changed, pump)
    except (ConnectionError, TimeoutError):
        pass  # the browser has gone, or does not read
    finally:
        pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pump
    return response


async def _pump(answers: AsyncGenerator[Any], picture: Picture, changed: asyncio.Event) -> str:
    """Take answers until there are no more; gives why it ended when that was a refusal."""
    try:
        async with contextlib.aclosing(answers):
            async for answer in answers:
                picture.take(answer)
                changed.set()
    except Refusal as refusal:
        return f"{refusal.message} [{refusal.reason}]"
    finally:
        changed.set()
    return ""


async def _show(
    response: web.StreamResponse, visit: Visit, picture: Picture, changed: asyncio.Event, pump: "asyncio.Task[str]"
) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ALIVE_SECONDS):
                await changed.wait()
        try:
            await visit.alive()
        except (SignedOutError, Refusal):
            await _send(response, b"event: over\ndata: over\n\n")
            return
        ended = pump.done()
        if not changed.is_set():
            await _send(response, b": alive\n\n")
            continue
        changed.clear()
        fragment, identifier = picture.draw()
        if fragment:
            await _send(response, _event(fragment, identifier))
        if ended:
            if picture.complete or pump.result():
                await _send(response, b"event: over\ndata: over\n\n")
            return
        await asyncio.sleep(PACE_SECONDS)


def _event(fragment: str, identifier: str) -> bytes:
    lines = [f"data: {line}" for line in fragment.splitlines()]
    head = [f"id: {identifier}"] if identifier else []
    return ("\n".join([*head, *lines]) + "\n\n").encode()


async def _send(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_SECONDS_MAX):
        await response.write(data)
