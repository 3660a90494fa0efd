"""Show rotations: one, a page, or one as it goes on. Reads only."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.domain.rotation import Rotation
from leasehold_broker.ports.rotation_log import RotationLog

LOOK_SECONDS = 1.0
PAGE_SIZE_MAX = 200
PAGE_SIZE = 50
_NAME = re.compile(r"rotations/([0-9a-f]{32})")
_ID = re.compile(r"[0-9a-f]{32}")


class ReadRotations:
    """Of this log."""

    def __init__(self, log: RotationLog, changed: Callable[[float], Awaitable[None]]) -> None:
        """`changed` returns when a rotation may have changed, or after so many seconds."""
        self._log = log
        self._changed = changed

    async def get(self, name: str) -> Rotation:
        """One by its name.

        Raises:
            Refusal: ROTATION_NOT_FOUND.
        """
        match = _NAME.fullmatch(name)
        found = None if match is None else await self._log.find_rotation(match[1])
        if found is None:
            shown = name if len(name) <= 64 and name.isprintable() else "that"
            message = f"no rotation {shown!r} is known; list the rotations to find its name"
            raise Refusal(Reason.ROTATION_NOT_FOUND, message)
        return found

    async def page(self, key: str, size: int, before_id: str) -> tuple[list[Rotation], str]:
        """One page, newest first, and the token of the next ("" at the end).

        Raises:
            Refusal: FIELD_INVALID.
        """
        if size < 0 or (before_id and not _ID.fullmatch(before_id)):
            raise field_invalid("page_token", "is not one that a listing gave; page_size must not be negative")
        limit = min(size or PAGE_SIZE, PAGE_SIZE_MAX)
        found = list(await self._log.last_rotations(key, limit + 1, before_id))
        return found[:limit], found[limit - 1].id if len(found) > limit else ""

    async def watch(self, name: str) -> AsyncIterator[Rotation]:
        """One at once, then after each change, until it is over.

        Raises:
            Refusal: ROTATION_NOT_FOUND.
        """
        told = None
        while True:
            rotation = await self.get(name)
            shown = replace(rotation, waited_ms=0)  # time alone is no change
            if shown != told:
                yield rotation
                told = shown
            if rotation.over:
                return
            await self._changed(LOOK_SECONDS)
