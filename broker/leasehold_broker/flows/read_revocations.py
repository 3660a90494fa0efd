"""Read revocations: one with its progress, a page, a watch. Changes nothing."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

from leasehold_broker.domain.page_token import PAGE_SIZE_MAX, page_size_of, read_token, write_token
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_progress import RevocationProgress
from leasehold_broker.ports.revocation_issuer import RevocationIssuer

NAME_PREFIX = "revocations/"
EPOCH_MAX = 2**62
_LISTING = "revocations"


class ReadRevocations:
    """Answers questions about revocations."""

    def __init__(self, issuer: RevocationIssuer) -> None:
        """Ask this issuer."""
        self._issuer = issuer

    async def get(self, name: str) -> RevocationProgress:
        """One entry and how far it has come.

        Raises:
            Refusal: REVOCATION_NOT_FOUND.
        """
        progress = await self._issuer.progress(_epoch_of(name))
        if progress is None:
            raise _not_found(name)
        return progress

    async def entry(self, name: str) -> Revocation:
        """One entry alone.

        Raises:
            Refusal: REVOCATION_NOT_FOUND.
        """
        epoch = _epoch_of(name)
        found = await self._issuer.page(epoch + 1, 1)
        if not found or found[0].epoch != epoch:
            raise _not_found(name)
        return found[0]

    async def page(self, page_size: int, page_token: str) -> tuple[list[Revocation], str]:
        """One page, newest first, and the token of the next ("" at the end).

        Raises:
            Refusal: FIELD_INVALID.
        """
        size = min(page_size_of(page_size), PAGE_SIZE_MAX)
        before = read_token(_LISTING, "", page_token)[0] if page_token else EPOCH_MAX
        entries = list(await self._issuer.page(before, size + 1))
        page = entries[:size]
        return page, write_token(_LISTING, "", page[-1].epoch) if len(entries) > size else ""

    async def watch(
        self, name: str, *, first_name: str = "", changes_only: bool = False
    ) -> AsyncIterator[RevocationProgress]:
        """The progress at once, then after each change, or with `changes_only` each change, until it is complete.

        With `first_name`, what all entries from that one to `name` have ended is added up.

        Raises:
            Refusal: REVOCATION_NOT_FOUND, OVERLOADED.
        """
        first_epoch = _epoch_of(first_name) if first_name else None
        found = False
        watching = self._issuer.watch(_epoch_of(name), first_epoch, changes_only=changes_only)
        async with aclosing(cast("AsyncGenerator[RevocationProgress]", watching)):
            async for progress in watching:
                found = True
                yield progress
        if not found:
            raise _not_found(name)


def _epoch_of(name: str) -> int:
    number = name.removeprefix(NAME_PREFIX)
    if name.startswith(NAME_PREFIX) and number.isascii() and number.isdecimal() and len(number) < 19:
        return int(number)
    raise _not_found(name)


def _not_found(name: str) -> Refusal:
    shown = name if len(name) <= 64 and name.isprintable() else "that"
    return Refusal(
        Reason.REVOCATION_NOT_FOUND, f"no revocation {shown!r} is known; list the revocations to find its name"
    )
