"""Ask for rotations, and supply what a person has made. Owns the checks of both; the log keeps each wish once."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.domain.rotation import DisabledKey, Purpose, Rotation, RotationState, Trigger
from leasehold_broker.domain.rotation_transitions import accepted
from leasehold_broker.domain.secret import Secret
from leasehold_broker.flows.issue_revocation import check_note, check_request_id, shown_as
from leasehold_broker.flows.rotated_key import AnyRotated, RotatedKey
from leasehold_broker.flows.rotation_events import started
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.ports.key_source import SourceFault
from leasehold_broker.ports.rotation_log import RotationLog, RotationRequest


class RequestRotation:
    """One rotation for each request id of one asker."""

    def __init__(
        self,
        log: RotationLog,
        events: EventLog,
        keys: Mapping[str, AnyRotated],
        clock: Clock,
        entropy: Entropy,
        wake: Callable[[], None],
    ) -> None:
        """Keep wishes in `log`; `wake` whoever drives rotations."""
        self._log = log
        self._events = events
        self._keys = keys
        self._clock = clock
        self._entropy = entropy
        self._wake = wake

    async def run(self, subject: Subject, request_id: str, key: str, note: str, trigger: Trigger) -> Rotation:
        """Ask for a rotation of this key by a caller; durable on return.

        Raises:
            Refusal: FIELD_INVALID, REQUEST_ID_REUSED, STORE_UNAVAILABLE, OVERLOADED.
        """
        check_request_id(request_id)
        check_note(note)
        return await self.wish(shown_as(subject), request_id, key, trigger, note, subject)

    async def wish(
        self,
        by: str,
        request_id: str,
        key: str,
        trigger: Trigger,
        note: str = "",
        subject: Subject | None = None,
        disables: DisabledKey | None = None,
    ) -> Rotation:
        """The same for one of our own, whose request ids are names of what it saw; `disables`: switch this off."""
        known = self._known(key)
        now = self._clock.now().wall_ms
        wanted = Rotation(
            self._entropy.bytes(16).hex(),
            key,
            known.environment,
            trigger,
            by,
            RotationState.PLANNED,
            now,
            now,
            note,
        )
        if disables is not None:
            wanted = replace(
                wanted,
                purpose=Purpose.DISABLE,
                old_key_id=disables.id,
                version=disables.version,
                switch_off=disables.switch_off,
            )
        rotation = await self._log.request(
            RotationRequest(wanted, request_id), lambda new: started(new, subject, request_id)
        )
        self._wake()
        return rotation

    async def supply(self, subject: Subject, request_id: str, key: str, value: Secret) -> Rotation:
        """Take the new value for the rotation of this key that awaits one: the provider is asked, then it is stored.

        Repeated: the first value stays.

        Raises:
            Refusal: FIELD_INVALID (nothing awaits it, or the provider refuses it), KEY_UNAVAILABLE (the store does not
                take it), STORE_UNAVAILABLE.
        """
        check_request_id(request_id)
        known = self._known(key)
        if not isinstance(known, RotatedKey):
            raise field_invalid("key", f"{key!r} is made by a secret engine: there is no value that could be supplied")
        rotation = await self._awaiting(key)
        if known.limits.probed and not accepted(status := await known.status(value)):
            said = f"answers {status} to it" if status else "gives no answer"
            raise field_invalid("key_value", f"was not stored: the provider {said}; check the key and supply it again")
        await self._events.record(
            Event(
                EventType.KEY_ROTATION_SUPPLIED,
                self._clock.now().wall_ms,
                Outcome.ALLOWED,
                subject=subject,
                request_id=request_id,
                details={"key": key, "environment": known.environment, "rotation": rotation.name},
            )
        )
        try:
            await known.store.put_pending(key, value, rotation.id)
        except SourceFault as fault:
            raise Refusal(
                Reason.KEY_UNAVAILABLE, "the key store did not take the new value; supply it again", detail=str(fault)
            ) from None
        self._wake()
        return rotation

    def check_known(self, key: str) -> None:
        """Go on when this key is rotated here. Raises Refusal: FIELD_INVALID."""
        self._known(key)

    async def _awaiting(self, key: str) -> Rotation:
        for rotation in await self._log.open_rotations():
            if rotation.key == key and rotation.state is RotationState.AWAITING_KEY:
                return rotation
        raise field_invalid("key", f"no rotation of {key!r} awaits a key; ask for one, or see how the last one stands")

    def _known(self, key: str) -> AnyRotated:
        known = self._keys.get(key)
        if known is None:
            names = ", ".join(sorted(self._keys)) or "none"
            raise field_invalid("key", f"{key!r} is no key that is rotated here; those are: {names}"[:500])
        return known
