"""Batches on their way to the log, in a JetStream stream: one message each, a subject for each sidecar.

The server keeps a message only when the subject's last message is the one that the sender names; so batches of one
sidecar are kept one after the other, whichever replicas they come through. A message's id is that of its content: the
same batch sent twice within the server's window is kept once even where its predecessor is forgotten by then.
"""

import asyncio
import base64
import contextlib
import uuid
from collections.abc import Sequence
from typing import Any

from nats.js.api import DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from leasehold_broker.adapters.nats_bus.batches import decode_batch, encode_batch
from leasehold_broker.adapters.nats_bus.connection import NatsAt, Session, open_session, unavailable
from leasehold_broker.adapters.nats_bus.reader import Reader
from leasehold_broker.domain.checked_record import CheckedRecord
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.ingest_stream import IngestMovedError, KeptBatch, StreamState

DUPLICATE_SECONDS = 240
"""Of the server's memory of message ids: longer than a message stays in the stream after its commit."""
READ_BATCHES = 4096
READ_BYTES = 10 * 1024 * 1024
"""At once, so in one turn at the log: a turn costs what hundreds of records cost, and everybody else waits for it."""
SESSION_WAIT_SECONDS = 0.2
_WRONG_LAST = (10071, 10164)
_FULL = (10077, 10047, 10023)
"""The server's codes: a wrong last sequence (the second where it is told as a constant); maximum bytes, no storage."""
_INCARNATION = "leasehold-incarnation"


class NatsIngest:
    """Implements `IngestStream` for one replica."""

    def __init__(self, at: NatsAt, name: str) -> None:
        """Connect to nothing yet.

        Args:
            at: where.
            name: of this replica, for the server's operators.
        """
        self._at = at
        self._name = name
        self._stream = f"{at.prefix}-ingest"
        self._session: Session | None = None
        self._reader: Reader | None = None

    async def connect(self) -> StreamState:
        """As the port says; the stream is made when it is missing."""
        await self.close()
        self._session = session = await open_session(self._at, self._name)
        try:
            try:
                found = await session.ask(self._found_or_made(session.js))
            except APIError as error:
                why = f"the stream {self._stream} cannot be used: {error.description}"
                raise unavailable(why) from None
        except BaseException:
            await self.close()
            raise
        incarnation = (found.config.metadata or {}).get(_INCARNATION) or str(found.created)
        return StreamState(incarnation, found.state.last_seq)

    async def ended(self) -> None:
        """As the port says."""
        if self._session is not None:
            await self._session.ended()

    async def close(self) -> None:
        """End the session."""
        session, self._session, self._reader = self._session, None, None
        if session is not None:
            await session.close()

    async def keep(self, stream: str, records: Sequence[CheckedRecord], receive_wall_ms: int, after: int) -> int:
        """As the port says."""
        session = self._open()
        last = records[-1]
        headers = {
            "Nats-Msg-Id": f"{last.epoch}.{records[0].sequence}.{last.sequence}.{last.digest.hex()}",
            "Nats-Expected-Last-Subject-Sequence": str(after),
        }
        payload = encode_batch(stream, records, receive_wall_ms)
        try:
            kept = await session.ask(session.js.publish(self._subject(stream), payload, headers=headers))
        except APIError as error:
            if error.err_code in _WRONG_LAST:
                raise IngestMovedError from None
            if error.err_code in _FULL:
                raise Refusal(
                    Reason.OVERLOADED,
                    "the collector's ingest stream is full: its log is behind; try again later",
                    detail=error.description or "",
                    retry_after_seconds=5.0,
                ) from None
            raise unavailable(str(error.description)) from None
        if kept.duplicate:
            raise IngestMovedError
        return int(kept.seq)

    async def last(self, stream: str) -> KeptBatch | None:
        """As the port says."""
        session = self._open()
        try:
            found = await session.ask(session.js.get_last_msg(self._stream, self._subject(stream)))
        except NotFoundError:
            return None
        except APIError as error:
            raise unavailable(str(error.description)) from None
        return _kept(found.seq, found.subject, found.data or b"")

    async def read(self, after: int) -> Sequence[KeptBatch]:
        """As the port says; one reader at a time."""
        while self._session is None or self._session.over:  # noqa: ASYNC110 - whoever keeps the session makes a new one
            await asyncio.sleep(SESSION_WAIT_SECONDS)
        if self._reader is None or self._reader.session is not self._session:
            self._reader = Reader(self._session, self._stream, f"{self._stream}.*")
        try:
            messages = await self._reader.read(after, READ_BATCHES, READ_BYTES)
        except APIError as error:
            raise unavailable(str(error.description)) from None
        return [_kept(message.metadata.sequence.stream, message.subject, message.data) for message in messages]

    async def forget(self, until: int) -> None:
        """As the port says."""
        session = self._open()
        try:
            await session.ask(session.js.purge_stream(self._stream, seq=until + 1))
        except APIError as error:
            raise unavailable(str(error.description)) from None

    def _open(self) -> Session:
        if self._session is None or self._session.over:
            raise unavailable("it is not connected")
        return self._session

    def _subject(self, stream: str) -> str:
        return f"{self._stream}.{base64.urlsafe_b64encode(stream.encode()).decode().rstrip('=')}"

    async def _found_or_made(self, js: Any) -> Any:
        config = StreamConfig(
            name=self._stream,
            subjects=[f"{self._stream}.*"],
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=self._at.bytes_max,
            num_replicas=self._at.replicas,
            duplicate_window=DUPLICATE_SECONDS,
            metadata={_INCARNATION: uuid.uuid4().hex},
        )
        for _ in range(2):
            with contextlib.suppress(NotFoundError):
                found = await js.stream_info(self._stream)
                if (found.config.max_bytes, found.config.num_replicas) == (config.max_bytes, config.num_replicas):
                    return found
                config.metadata = found.config.metadata
                return await js.update_stream(config)
            with contextlib.suppress(APIError):  # another replica has just made it
                return await js.add_stream(config)
        return await js.stream_info(self._stream)


def _kept(place: int, subject: str, raw: bytes) -> KeptBatch:
    """What cannot be read is a batch without records, of the sidecar that its subject names."""
    try:
        stream, records, receive_wall_ms = decode_batch(raw)
    except ValueError:
        word = subject.rpartition(".")[2]
        with contextlib.suppress(ValueError):
            word = base64.urlsafe_b64decode(word + "=" * (-len(word) % 4)).decode()
        return KeptBatch(place, word, (), 0, raw)
    return KeptBatch(place, stream, records, receive_wall_ms, raw)
