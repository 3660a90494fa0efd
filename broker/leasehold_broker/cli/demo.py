"""leasehold-broker demo: the whole mission on this machine. Owns the folder, the keys it is given, and the exit code.

Exit codes: 0 every claim held, 1 one did not, 2 wrong usage.
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path

import click

_VARIABLES = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "openai": ("OPENAI_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
}
"""The only place that reads provider keys from the environment: to put them into the demo's store, and nowhere else."""

ROOT_BYTES_MAX = 75


@click.command()
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Play in this new folder and leave it: configuration, logs, audit log.",
)
@click.option("--stand-in", "only_stand_in", is_flag=True, help="Call no real provider, whatever the environment has.")
@click.option("--no-color", is_flag=True, help="Plain text.")
def demo(keep: Path | None, *, only_stand_in: bool, no_color: bool) -> None:
    """Watch a capped lease from its grant to its audit, in under a minute.

    Starts a collector, two sidecars, an OIDC issuer and agents built on the official SDKs. Where ANTHROPIC_API_KEY,
    OPENAI_API_KEY or GEMINI_API_KEY is set, that provider is called for real, with caps of a few cents; for the others
    a stand-in answers. Needs no network then.
    """
    try:
        from leasehold_broker.demo.page import Page  # noqa: PLC0415 - `--help` is quick
        from leasehold_broker.demo.story import Story  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        message = f"the demo needs {error.name}; install leasehold-broker[demo], or run: make demo"
        raise click.ClickException(message) from None
    from leasehold_broker.demo.processes import DemoFailedError  # noqa: PLC0415 - as above

    keys = _keys_from_environment(only_stand_in=only_stand_in)
    root = _folder(keep)
    page = Page(color=False if no_color or "NO_COLOR" in os.environ else None)
    try:
        asyncio.run(_until_told(Story(root, page, keys).tell()))
    except DemoFailedError as error:
        page.failed(str(error))
        sys.exit(1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        page.failed("stopped; every process of the demo has been ended")
        sys.exit(130)
    finally:
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)
    page.line("")
    page.title(f"Everything above was checked while it happened. {page.seconds:.1f} s.")
    if keep is not None:
        page.line(f"kept: {root}")


async def _until_told(telling: Coroutine[None, None, None]) -> None:
    """Tell the story; a signal ends it in order, so that no process outlives it.

    Raises:
        DemoFailedError: something did not go as told; of several at the same time, the first.
    """
    from leasehold_broker.demo.processes import DemoFailedError  # noqa: PLC0415 - as above

    task = asyncio.ensure_future(telling)
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except ExceptionGroup as group:
        failure: Exception = group
        while isinstance(failure, ExceptionGroup):
            failure = failure.exceptions[0]
        if not isinstance(failure, DemoFailedError):
            raise
        raise failure from None


def _keys_from_environment(*, only_stand_in: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for provider, names in _VARIABLES.items():
        for name in names:
            value = os.environ.pop(name, "").strip()
            if value and not only_stand_in:
                found.setdefault(provider, value)
    return found


def _folder(keep: Path | None) -> Path:
    if keep is None:
        _short(Path(tempfile.gettempdir()) / "leasehold-12345678", "set TMPDIR to a folder with a shorter one")
        return Path(tempfile.mkdtemp(prefix="leasehold-"))
    _short(keep.absolute(), "name a shorter one with --keep")
    try:
        keep.mkdir(mode=0o700)
    except OSError as error:
        message = f"--keep {keep}: {error.strerror}; name a folder that does not exist yet"
        raise click.UsageError(message) from None
    return keep.resolve()


def _short(root: Path, what: str) -> None:
    """A Unix socket's path holds at most 107 bytes, and ours lie some way below `root`."""
    if len(os.fsencode(root)) > ROOT_BYTES_MAX:
        message = f"the path {root} is too long for Unix sockets below it: {what}"
        raise click.UsageError(message)
