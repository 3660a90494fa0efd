"""The lives of streams: heads, which life is current, and how each one ended (A6). Stores nothing."""

from collections.abc import Container
from dataclasses import replace

from leasehold_broker.domain.audit_chain import ChainEnd, Linked
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.stream_head import LifeState, StreamHead

_STOPS = frozenset({EventType.SIDECAR_STOPPED.value, EventType.COLLECTOR_STOPPED.value})


class StreamLives:
    """What is known of some streams; what has changed is to be stored before the records that refer to it."""

    def __init__(self, own_streams: Container[str], count: int = 0) -> None:
        """Know nothing yet.

        Args:
            own_streams: of collectors: what their lives wrote is in the log itself, all of it.
            count: lives that are stored, of all streams: the next one's row is `count + 1`.
        """
        self.count = count
        self._own_streams = own_streams
        self._heads: dict[str, StreamHead] = {}
        self._earlier: dict[str, dict[str, StreamHead]] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._touched: dict[tuple[str, str], StreamHead] = {}

    def know(self, life: int, head: StreamHead) -> None:
        """Take over a stored life; of one stream the oldest first."""
        if head.stream in self._heads:
            before = self._heads[head.stream]
            self._earlier.setdefault(head.stream, {})[before.epoch] = before
        self._heads[head.stream] = head
        self._ids[head.stream, head.epoch] = life

    def head(self, stream: str) -> StreamHead | None:
        """Of the stream's current life."""
        return self._heads.get(stream)

    def earlier(self, stream: str) -> Container[str]:
        """Epochs of the lives before that."""
        return self._earlier.get(stream, {})

    def cut_off(self, record: Linked) -> StreamHead | None:
        """Flag a life that was closed by the word of the next one, and that this record would go on.

        Returns:
            The life, its tail unknown from now on; None when it is not closed, is the stream's own, or has this record.
        """
        head = self._earlier.get(record.stream, {}).get(record.epoch)
        if head is None or head.state is not LifeState.CLOSED or record.sequence <= head.sequence:
            return None
        ended = replace(head, state=LifeState.TAIL_UNKNOWN)
        self._earlier[record.stream][record.epoch] = ended
        self._touched[record.stream, record.epoch] = ended
        return ended

    def id_of(self, stream: str, epoch: str) -> int | None:
        """Row of a life; None when it is not known."""
        return self._ids.get((stream, epoch))

    def follow(
        self, record: Linked, type_: str, previous: ChainEnd | None, receive_wall_ms: int
    ) -> tuple[int, StreamHead | None]:
        """Move a stream's head to an accepted record.

        Args:
            record: accepted.
            type_: of its event.
            previous: how the life before ended, as this record says.
            receive_wall_ms: now.

        Returns:
            Row of the record's life, and the life that it ends with its tail unknown, when there is one.
        """
        last = self._heads.get(record.stream)
        unknown = None
        if last is not None and last.epoch != record.epoch:
            known = ChainEnd(last.epoch, last.sequence, last.digest)
            whole = last.state is LifeState.CLOSED or previous == known or record.stream in self._own_streams
            ended = replace(last, state=LifeState.CLOSED if whole else LifeState.TAIL_UNKNOWN)
            unknown = None if whole else ended
            self._earlier.setdefault(record.stream, {})[last.epoch] = ended
            self._touched[last.stream, last.epoch] = ended
        state = LifeState.CLOSED if type_ in _STOPS else LifeState.OPEN
        head = StreamHead(record.stream, record.epoch, record.sequence, record.digest, receive_wall_ms, state)
        self._heads[record.stream] = head
        place = (record.stream, record.epoch)
        self._touched[place] = head
        if place not in self._ids:
            self.count += 1
            self._ids[place] = self.count
        return self._ids[place], unknown

    def take_touched(self) -> list[tuple[int, StreamHead]]:
        """Rows and heads that have changed since the last call, ended lives before those that follow them."""
        touched = [(self._ids[place], head) for place, head in self._touched.items()]
        self._touched.clear()
        return sorted(touched, key=lambda one: one[0])
