"""Reads a JetStream stream from a place on, in its order. Owns that nothing is passed over.

What the server pushes may be lost on the way, and a reader there may be forgotten: places are counted here, and while
nothing comes the stream is asked how far it is. Either way a new reader begins behind the last message that was read.
"""

from collections.abc import Sequence
from typing import Any

from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from leasehold_broker.adapters.nats_bus.connection import Session, attempted

WAIT_SECONDS = 1.0
DOUBT_SECONDS = 5.0
FORGOTTEN_SECONDS = 60.0
"""After which the server drops a reader that has gone."""
BEAT_SECONDS = 30.0
"""Of a server that waits for us: seldom, as the library answers it with leave to send more, whatever is unread."""
PENDING_MESSAGES_MAX = 64 * 1024
PENDING_BYTES_MAX = 64 * 1024 * 1024
"""More than a server sends ahead under flow control (32 MiB): what is beyond would be lost, and be read anew."""


class Reader:
    """Of one stream, in one session."""

    def __init__(self, session: Session, stream: str, subject: str) -> None:
        """Read nothing yet."""
        self.session = session
        self._stream = stream
        self._subject = subject
        self._pushed: Any = None
        self._place = -1
        self._counted = 0
        self._silent_seconds = 0.0

    async def read(self, after: int, messages_max: int, bytes_max: int) -> Sequence[Any]:
        """Messages behind this place, up to so many, or so many bytes; none when none comes within `WAIT_SECONDS`.

        Raises:
            Refusal: STORE_UNAVAILABLE.
            APIError: the server refuses.
        """
        if self._pushed is None or self._place != after:
            await self.close()
            self._pushed = await self.session.ask(self._subscribed(after))
            self._place = after
        try:
            messages = await self.session.ask(self._next(messages_max, bytes_max))
        except BaseException:
            await self.close()
            raise
        if not messages:
            await self._doubt()
        return await self._in_order(messages)

    async def close(self) -> None:
        """Have nothing more pushed."""
        pushed, self._pushed = self._pushed, None
        if pushed is not None:
            await attempted(pushed.unsubscribe())

    async def _in_order(self, messages: Sequence[Any]) -> Sequence[Any]:
        found: list[Any] = []
        for message in messages:
            meta = message.metadata.sequence
            if meta.consumer != self._counted + 1:
                await self.close()  # some were lost on the way: they are read anew
                break
            self._counted = meta.consumer
            self._place = meta.stream
            found.append(message)
        return found

    async def _subscribed(self, after: int) -> Any:
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            inactive_threshold=FORGOTTEN_SECONDS,
            mem_storage=True,
            num_replicas=1,
            max_deliver=1,
            idle_heartbeat=BEAT_SECONDS,
        )
        self._counted = 0
        self._silent_seconds = 0.0
        return await self.session.js.subscribe(
            self._subject,
            stream=self._stream,
            config=config,
            manual_ack=True,
            flow_control=True,
            pending_msgs_limit=PENDING_MESSAGES_MAX,
            pending_bytes_limit=PENDING_BYTES_MAX,
        )

    async def _next(self, messages_max: int, bytes_max: int) -> Sequence[Any]:
        try:
            found = [await self._pushed.next_msg(timeout=WAIT_SECONDS)]
        except NatsTimeoutError:
            return ()
        size = len(found[0].data)
        while len(found) < messages_max and size < bytes_max and self._pushed.pending_msgs:
            found.append(await self._pushed.next_msg(timeout=WAIT_SECONDS))
            size += len(found[-1].data)
        self._silent_seconds = 0.0
        return found

    async def _doubt(self) -> None:
        """Begin anew when the stream is further than what was pushed."""
        self._silent_seconds += WAIT_SECONDS
        if self._silent_seconds >= DOUBT_SECONDS:
            self._silent_seconds = 0.0
            info = await self.session.ask(self.session.js.stream_info(self._stream))
            if info.state.last_seq > self._place and info.state.messages:
                await self.close()
