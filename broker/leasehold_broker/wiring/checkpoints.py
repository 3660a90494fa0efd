"""Checkpoints of one log, kept up while the log is open: key, publisher, copies beside it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from leasehold_broker.adapters.checkpoint_key import CheckpointKey, open_checkpoint_key
from leasehold_broker.adapters.private_files import replace_private
from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.domain.checkpoint import NOTE_BYTES_MAX, TreeHead, head_of
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.flows.prove import Prove
from leasehold_broker.flows.publish_checkpoint import LogDamagedError, PublishCheckpoint
from leasehold_broker.ports.clock import Clock

log = structlog.get_logger("leasehold.checkpoints")


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """How a log is signed.

    Args:
        origin: name of the log.
        key_file: the signing key; made when it is missing.
        verifier_key_file: the public key is written here.
        copy_file: the newest note is copied here; None for nowhere.
        seconds: at most one checkpoint in this time.
    """

    origin: str
    key_file: Path
    verifier_key_file: Path
    copy_file: Path | None = None
    seconds: float = 1.0


@contextlib.asynccontextmanager
async def checkpoints(
    plan: CheckpointPlan, store: CollectorStore, clock: Clock, fail: Callable[[str], None]
) -> AsyncIterator[tuple[Prove, PublishCheckpoint]]:
    """Publish while the context lasts, and once more at its end.

    Args:
        plan: how.
        store: of what; a log of another origin than the plan's must not be given.
        clock: for labels.
        fail: told when nothing may be published any more.

    Raises:
        CheckpointKeyError, NotPrivateError, OSError: the key cannot be used.
        LogDamagedError: the log does not continue what was published of it.
        Refusal: STORE_UNAVAILABLE.
    """
    key = open_checkpoint_key(plan.key_file, plan.origin)
    replace_private(plan.verifier_key_file, key.verifier_key.encode() + b"\n")
    publish = PublishCheckpoint(store, store, key, clock, partial(_copied, plan.copy_file))
    await publish.start(_kept(plan.copy_file, key))
    log.info("signing checkpoints", verifier_key=key.verifier_key)

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("checkpoints ended", why=str(task.exception()))
            fail(f"no checkpoint can be published: {task.exception()}")

    task = asyncio.create_task(publish.run(plan.seconds), name="checkpoints")
    task.add_done_callback(ended)
    try:
        yield Prove(store, store, publish, key.verifier_key), publish
    finally:
        failed = task.done()
        task.cancel()
        await asyncio.wait([task])
        if not failed:
            # The last events too. What cannot be signed now is signed at the next start.
            with contextlib.suppress(Refusal, LogDamagedError):
                await publish.step()


async def _copied(path: Path | None, note: bytes) -> None:
    if path is None:
        return
    try:
        await asyncio.to_thread(replace_private, path, note)
    except OSError as error:
        log.warning("the copy of the checkpoint cannot be written", path=str(path), why=error.strerror)


def _kept(path: Path | None, key: CheckpointKey) -> TreeHead | None:
    if path is None or not path.exists():
        return None
    with path.open("rb") as file:
        note = file.read(NOTE_BYTES_MAX)
    try:
        return head_of(note, key.origin)
    except ValueError as error:
        message = f"the copy of the checkpoint, {path}, {error}; put the right one back, or name another file"
        raise LogDamagedError(message) from None
