"""Whether this sidecar still speaks for the centre. Owns the deadline; see domain/sync.py for why it is sound."""

from leasehold_broker.domain.sync import Push
from leasehold_broker.domain.time import Instant


class Authority:
    """The deadline until which this sidecar may grant. Starts lapsed: nothing is granted before the first answer."""

    def __init__(self, now: Instant) -> None:
        """Start without authority."""
        self._until_ns = now.boot_ns
        self._fenced_ns: int | None = None
        self._sent: dict[int, Instant] = {}
        self._answered: tuple[int, Instant] | None = None
        self._number = 0
        self._heard = 0
        self.authority_seconds = 0.0

    def new_session(self) -> None:
        """Heartbeats are counted anew; answers to older ones are worth nothing. What was granted stays."""
        self._sent.clear()
        self._answered = None
        self._number = 0
        self._heard = 0

    def heartbeat(self, now: Instant) -> int:
        """The number to send now."""
        self._number += 1
        self._sent[self._number] = now
        return self._number

    def advances(self, answers: int) -> bool:
        """Whether the collector has heard more of us than it had said before in this session.

        Raises:
            ValueError: it answers a heartbeat that was not sent.
        """
        if answers > self._number:
            message = f"the collector answers heartbeat {answers}, and {self._number} were sent"
            raise ValueError(message)
        before, self._heard = self._heard, max(self._heard, answers)
        return answers > before

    def sent_at(self, answers: int) -> Instant | None:
        """When the heartbeat that an answer names was sent; None when it is of no known one."""
        if self._answered is not None and self._answered[0] == answers:
            return self._answered[1]
        return self._sent.get(answers)

    def answered(self, push: Push, applied_epoch: int, history: bytes) -> None:
        """Take an answer, once all that it says is applied, and nothing else: from when its heartbeat was sent."""
        self.authority_seconds = push.authority_seconds
        if applied_epoch != push.revocation_epoch:
            return
        if push.history is not None and history != push.history:
            return
        sent = self._sent.get(push.answers)
        if sent is not None:
            self._until_ns = max(self._until_ns, sent.after(push.authority_seconds))
            self._answered = (push.answers, sent)
            self._sent = {number: when for number, when in self._sent.items() if number > push.answers}

    def lapse(self, now: Instant) -> None:
        """The collector says that this sidecar may not speak for it: no authority until it answers anew."""
        self._until_ns = min(self._until_ns, now.boot_ns)
        self._sent.clear()

    def fence(self, now: Instant) -> None:
        """The collector says that a newer copy of this sidecar lives: no authority until it takes our records again."""
        if self._fenced_ns is None:
            self._fenced_ns = now.boot_ns

    def unfence(self) -> None:
        """The collector took our records."""
        self._fenced_ns = None

    def lapsed_seconds(self, now: Instant) -> float | None:
        """Seconds since authority lapsed; None while it holds."""
        until = self._until_ns if self._fenced_ns is None else min(self._until_ns, self._fenced_ns)
        left = now.seconds_until(until)
        return None if left > 0 else -left
