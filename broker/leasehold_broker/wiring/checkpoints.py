"""Checkpoints of one log, kept up while the log is open: key, publisher, copies beside it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from leasehold.checkpoint import Checkpoint
from leasehold.errors import InvalidRequest
from leasehold.note import VerifierKey
from leasehold_broker.adapters.checkpoint_key import CheckpointKey, CheckpointKeyError, open_checkpoint_key
from leasehold_broker.adapters.private_files import replace_private, sweep_aside
from leasehold_broker.adapters.sinks import OwnThread
from leasehold_broker.domain.checkpoint import NOTE_BYTES_MAX, SignedCheckpoint, TreeHead, head_of
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.flows.prove import Prove
from leasehold_broker.flows.publish_checkpoint import LogDamagedError, PublishCheckpoint
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_sink import SinkFailedError
from leasehold_broker.wiring.collector_bus import Work
from leasehold_broker.wiring.collector_store import OpenStore

RETRY_SECONDS = 1.0
COPY_SECONDS_MAX = 5.0
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
    plan: CheckpointPlan, store: OpenStore, clock: Clock, fail: Callable[[str], None]
) -> AsyncIterator[tuple[Prove, PublishCheckpoint]]:
    """Publish while the context lasts, and, without replicas, once more at its end.

    Args:
        plan: how.
        store: of what; a log of another origin than the plan's must not be given. Of replicas one publishes.
        clock: for labels.
        fail: told when nothing may be published any more.

    Raises:
        CheckpointKeyError, NotPrivateError, OSError: the key cannot be used.
        LogDamagedError: the log does not continue what was published of it, or was signed with another key.
        Refusal: STORE_UNAVAILABLE.
    """
    if store.shared and not plan.key_file.exists():
        message = (
            f"{plan.key_file} is missing: replicas sign with one key; make it once with 'leasehold-broker collector "
            "--make-checkpoint-key', and give every replica a copy"
        )
        raise CheckpointKeyError(message)
    key = open_checkpoint_key(plan.key_file, plan.origin)
    sweep_aside(plan.verifier_key_file)
    _written(plan.verifier_key_file, key.verifier_key.encode() + b"\n")
    copy = CheckpointCopy(plan.copy_file)
    publish = PublishCheckpoint(store.log, store.log, key, clock, copy.put)
    kept = await copy.kept(key.origin)
    await publish.start(kept)
    if store.shared:
        _must_be_ours(publish.newest, key)
    log.info("signing checkpoints", verifier_key=key.verifier_key)
    duties: list[Work] = [partial(_keep_publishing, publish, kept, plan.seconds)]
    if store.shared:
        duties = [store.led(store.signing_lead, partial(_lead, publish, kept, plan.seconds)), partial(_follow, publish)]
    tasks = [_running(duty, fail) for duty in duties]
    try:
        yield Prove(store.log, store.log, publish, key.verifier_key), publish
    finally:
        failed = any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if not failed and not store.shared:
            # The last events too. What cannot be signed now is signed at the next start.
            with contextlib.suppress(Refusal, LogDamagedError):
                await publish.step()


def _running(duty: Work, fail: Callable[[str], None]) -> asyncio.Task[None]:
    async def run() -> None:
        await duty()

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("checkpoints ended", why=str(task.exception()))
            fail(f"no checkpoint can be published: {task.exception()}")

    task = asyncio.create_task(run(), name="checkpoints")
    task.add_done_callback(ended)
    return task


async def _lead(publish: PublishCheckpoint, kept: TreeHead | None, seconds: float) -> None:
    """Publish as the one of the replicas that does."""
    log.info("this replica publishes checkpoints")
    await _keep_publishing(publish, kept, seconds)


async def _keep_publishing(publish: PublishCheckpoint, kept: TreeHead | None, seconds: float) -> None:
    """A full disk and a database that is away are waited for: meanwhile revocations still reach every sidecar."""
    while True:
        try:
            await publish.start(kept)
            await publish.run(seconds)
        except Refusal as refusal:
            log.warning("no checkpoint now", reason=refusal.reason, detail=refusal.detail)
            await asyncio.sleep(RETRY_SECONDS)


async def _follow(publish: PublishCheckpoint) -> None:
    """Know what is published, by whichever replica."""
    while True:
        try:
            await publish.follow(RETRY_SECONDS)
        except Refusal as refusal:
            log.warning("checkpoints cannot be read", reason=refusal.reason, detail=refusal.detail)
            await asyncio.sleep(RETRY_SECONDS)


def _must_be_ours(newest: SignedCheckpoint | None, key: CheckpointKey) -> None:
    if newest is None:
        return
    try:
        Checkpoint.of_note(newest.note, VerifierKey.of_text(key.verifier_key))
    except InvalidRequest:
        message = "the newest checkpoint was not signed with this replica's key: give every replica a copy of one key"
        raise LogDamagedError(message) from None


class CheckpointCopy:
    """The newest note, in a file that is elsewhere. Where that hangs, it keeps one thread and holds up nothing else."""

    def __init__(self, path: Path | None, write: Callable[[Path, bytes], None] = replace_private) -> None:
        """Copy there; None: nowhere."""
        self._path = path
        self._write = write
        self._thread = OwnThread("checkpoint-copy")
        self._failing = ""

    async def put(self, note: bytes) -> str:
        """Why it could not be written; "" when it was. What hangs is waited for once, and then only looked at."""
        if self._path is None:
            return ""
        try:
            await self._thread.run(partial(self._write, self._path, note), COPY_SECONDS_MAX)
        except (OSError, SinkFailedError) as error:
            self._told(getattr(error, "strerror", None) or str(error))
        else:
            self._told("")
        return self._failing

    async def kept(self, origin: str) -> TreeHead | None:
        """The head that was copied there by an earlier life; None when there is none.

        Raises:
            LogDamagedError: it cannot be read, or is none.
        """
        if self._path is None:
            return None
        try:
            return await self._thread.run(partial(_kept, self._path, origin), COPY_SECONDS_MAX)
        except (OSError, SinkFailedError) as error:
            message = f"the copy of the checkpoint, {self._path}, cannot be read: {error}; mend that disk first"
            raise LogDamagedError(message) from None

    def _told(self, why: str) -> None:
        if why and why != self._failing:
            log.warning("the copy of the checkpoint cannot be written", path=str(self._path), why=why)
        elif self._failing and not why:
            log.info("the copy of the checkpoint is written again", path=str(self._path))
        self._failing = why


def _written(path: Path, text: bytes) -> None:
    """There with this content; what is there already needs no room on a disk that is full."""
    if not path.is_file() or path.read_bytes() != text:
        replace_private(path, text)


def _kept(path: Path, origin: str) -> TreeHead | None:
    sweep_aside(path)
    if not path.exists():
        return None
    with path.open("rb") as file:
        note = file.read(NOTE_BYTES_MAX)
    try:
        return head_of(note, origin)
    except ValueError as error:
        message = f"the copy of the checkpoint, {path}, {error}; put the right one back, or name another file"
        raise LogDamagedError(message) from None
