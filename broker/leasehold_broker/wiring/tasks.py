"""How tasks beside the doors end."""

import asyncio


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel it, and wait until it has ended."""
    task.cancel()
    await asyncio.wait([task])
