"""A collector in a process of its own, to be killed: `python -m tests.fakes.collector_process FOLDER EPOCH`."""

import asyncio
import sys
from pathlib import Path

from tests.fakes.centre import Centre


async def main() -> None:
    """Serve until killed; says "ready" once."""
    folder = Path(sys.argv[1])
    (folder / "collector.sock").unlink(missing_ok=True)
    async with Centre(folder, sys.argv[2]):
        print("ready", flush=True)  # noqa: T201 - the parent waits for it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
