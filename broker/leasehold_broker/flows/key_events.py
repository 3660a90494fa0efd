"""What happens to keys, in the audit log and in the metrics. Owns the events' words; a value is never among them."""

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.flows.agent_tokens import holder_name
from leasehold_broker.flows.federated_keys import Minting
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.flows.sourced_keys import SourceChange
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_source import SourceState

FAILING_MAX = 1_000
"""Keys, and holders, of which it is remembered that their failure has been told."""


class KeyEvents:
    """The hooks of what serves keys."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        """Write to this journal."""
        self._journal = journal
        self._clock = clock
        self._failing: dict[tuple[str, str], str] = {}

    def source_changed(self, change: SourceChange) -> None:
        """A store elsewhere gave another version of a key, or stands otherwise than before."""
        serving = change.state is SourceState.SERVING
        event = Event(
            EventType.KEY_READ if serving else EventType.KEY_NOT_READ,
            self._clock.now().wall_ms,
            Outcome.ALLOWED if serving else Outcome.FAILED,
            None if serving else Reason.KEY_UNAVAILABLE,
            details={
                "key": change.key,
                "state": change.state.value,
                "version": change.version,
                **({} if serving else {"why": change.why}),
            },
        )
        self._journal.in_background(self._written(event))

    def minting(self, minting: Minting) -> None:
        """A workload token was exchanged, or could not be. Failures of one sort are told once until they end."""
        key, fault = minting.key, minting.fault
        state = "" if fault is None else fault.state.value
        failing = key.name, holder_name(minting.holder)
        if state and self._failing.get(failing) == state:
            return
        self._failing.pop(failing, None)
        if state:
            self._failing[failing] = state
            while len(self._failing) > FAILING_MAX:
                del self._failing[next(iter(self._failing))]
        details: dict[str, Detail] = {"key": key.name, "version": key.version, "models": list(minting.models)}
        details["exchanged"] = "the sidecar's token" if key.assertion_file else "the agent's token"
        if fault is None:
            details |= {"life_seconds": minting.life_seconds, "revocation": key.exchange.revocation}
        else:
            details |= {"state": state, "why": str(fault)}
        event = Event(
            EventType.KEY_MINTED if fault is None else EventType.KEY_NOT_MINTED,
            self._clock.now().wall_ms,
            Outcome.ALLOWED if fault is None else Outcome.FAILED,
            None if fault is None else Reason.KEY_UNAVAILABLE,
            minting.holder,
            details=details,
        )
        self._journal.in_background(self._written(event))

    async def _written(self, event: Event) -> None:
        await self._journal.ending(Batch([event], []))
