"""Revocations in a key-value bucket: one key for each epoch, written once, watched by every replica.

A watch goes on from the last revision that was heard, also in a new session. What the bucket has dropped by its age is
not missed: who sees an epoch that does not follow asks the log.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import APIError, BucketNotFoundError, KeyWrongLastSequenceError

from leasehold_broker.adapters.nats_bus.connection import NatsAt, Session, open_session, unavailable
from leasehold_broker.adapters.nats_bus.reader import Reader
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.selector_words import from_words, order_from_words, order_to_words, to_words

KEPT_SECONDS = 24 * 3600
BYTES_MAX = 64 * 1024 * 1024
HEARD_MAX = 256


class _Entry(msgspec.Struct):
    epoch: int
    selector: dict[str, Any]
    terms: dict[str, Any]
    note: str
    revoked_by: str
    create_wall_ms: int


_DECODER = msgspec.json.Decoder(_Entry)


class NatsRevocations:
    """Implements `RevocationRelay` for one replica."""

    def __init__(self, at: NatsAt, name: str) -> None:
        """Connect to nothing yet."""
        self._at = at
        self._name = name
        self._bucket = f"{at.prefix}-revocations"
        self._session: Session | None = None
        self._reader: Reader | None = None
        self._kv: Any = None
        self._created: Any = None
        self._revision = 0

    async def connect(self) -> None:
        """As the port says; the bucket is made when it is missing."""
        await self.close()
        self._session = session = await open_session(self._at, self._name)
        stream = f"KV_{self._bucket}"
        try:
            self._kv = await session.ask(self._found_or_made(session.js))
            info = await session.ask(session.js.stream_info(stream))
        except APIError as error:
            await self.close()
            why = f"the bucket {self._bucket} cannot be used: {error.description}"
            raise unavailable(why) from None
        except BaseException:
            await self.close()
            raise
        if info.created != self._created or info.state.last_seq < self._revision:
            self._created, self._revision = info.created, 0  # another bucket, or an older copy: all of it is heard
        self._reader = Reader(session, stream, f"$KV.{self._bucket}.>")

    async def close(self) -> None:
        """End the session."""
        session, self._session, self._reader = self._session, None, None
        if session is not None:
            await session.close()

    async def tell(self, entry: Revocation) -> None:
        """As the port says."""
        if self._session is None or self._session.over:
            raise unavailable("it is not connected")
        body = _Entry(
            entry.epoch,
            to_words(entry.selector),
            order_to_words(entry.order),
            entry.note,
            entry.revoked_by,
            entry.create_wall_ms,
        )
        with contextlib.suppress(KeyWrongLastSequenceError):  # another replica has told it
            try:
                await self._session.ask(self._kv.create(f"{entry.epoch:020d}", msgspec.json.encode(body)))
            except KeyWrongLastSequenceError:
                raise
            except APIError as error:
                raise unavailable(str(error.description)) from None

    async def hear(self) -> Sequence[Revocation]:
        """As the port says; what cannot be read is passed over, and found missing by its epoch."""
        if self._reader is None or self._session is None or self._session.over:
            raise unavailable("it is not connected")
        try:
            messages = await self._reader.read(self._revision, HEARD_MAX, BYTES_MAX)
        except APIError as error:
            raise unavailable(str(error.description)) from None
        found: list[Revocation] = []
        for message in messages:
            self._revision = message.metadata.sequence.stream
            with contextlib.suppress(ValueError, msgspec.MsgspecError):
                found.append(_entry(message.data))
        return found

    async def _found_or_made(self, js: Any) -> Any:
        with contextlib.suppress(BucketNotFoundError):
            return await js.key_value(self._bucket)
        config = KeyValueConfig(
            bucket=self._bucket,
            history=1,
            ttl=KEPT_SECONDS,
            max_bytes=BYTES_MAX,
            storage=StorageType.FILE,
            replicas=self._at.replicas,
        )
        with contextlib.suppress(APIError):  # another replica has just made it
            return await js.create_key_value(config)
        return await js.key_value(self._bucket)


def _entry(data: bytes) -> Revocation:
    words = _DECODER.decode(data)
    selector, order = from_words(words.selector), order_from_words(words.terms)
    return Revocation(words.epoch, selector, words.note, words.revoked_by, words.create_wall_ms, order)
