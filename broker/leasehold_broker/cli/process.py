"""What sidecar and collector share as commands: signals, the event loop, passphrase, exit codes."""

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TextIO

import click
import uvloop

from leasehold_broker.wiring.run import REFUSALS_TO_START, ProcessFailedError, Serve

FAILED, REFUSED_TO_START = 1, 2
SWITCH_SECONDS = 0.0002
GC_THRESHOLD = 100_000


def serve(prepare: Callable[[], Serve]) -> None:
    """Prepare and run until told to stop; leaves with the exit code."""
    sys.exit(_exit_code(lambda: run_tuned(_until_told(prepare()))))


def run_tuned(work: Coroutine[object, object, None]) -> None:
    """Run on the loop, and with the interpreter, of every process of ours."""
    # The thread that waits for the disk wants the interpreter back after each sync; by default it would wait 5 ms for
    # a busy loop to let go, longer than the sync itself.
    sys.setswitchinterval(SWITCH_SECONDS)
    # What is imported by now stays: the collector of cycles need not walk it again and again, nor run so often.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(work)


def check(load: Callable[[], None], what: str) -> None:
    """Load and start nothing; leaves with the exit code."""

    def fine() -> str:
        load()
        return f"{what}: fine"

    say(fine)


def say(work: Callable[[], str]) -> None:
    """Do this, say what it gives and start nothing; leaves with the exit code."""
    words: list[str] = []
    code = _exit_code(lambda: words.append(work()))
    click.echo("".join(f"{each}\n" for each in words), nl=False)
    sys.exit(code)


def read_passphrase(stream: TextIO) -> bytes:
    """The key store's passphrase: a hidden prompt on a terminal, else the first line of standard input."""
    if stream.isatty():
        return str(click.prompt("passphrase of the key store", hide_input=True, err=True)).encode()
    return stream.readline().rstrip("\n").encode()


def _exit_code(work: Callable[[], object]) -> int:
    try:
        work()
    except ProcessFailedError as error:
        click.echo(f"failed: {error}", err=True)
        return FAILED
    except REFUSALS_TO_START as error:
        click.echo(f"refused to start: {error}", err=True)
        return REFUSED_TO_START
    return 0


async def _until_told(run: Callable[[asyncio.Event, asyncio.Event], Awaitable[None]]) -> None:
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    await run(stop, reload)
