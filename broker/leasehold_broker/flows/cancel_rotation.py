"""Give up a rotation whose new key does not serve yet. Owns the check that a working key is left.

What was begun is undone by whoever drives rotations, which looks first: a new key that serves by then stays, and the
rotation goes on forwards.
"""

from collections.abc import Callable, Mapping

from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.domain.rotation import Rotation, RotationState
from leasehold_broker.domain.rotation_transitions import accepted, cancelled, refused
from leasehold_broker.flows.issue_revocation import check_note, check_request_id, shown_as
from leasehold_broker.flows.read_rotations import ReadRotations
from leasehold_broker.flows.rotated_key import AnyRotated, RotatedKey
from leasehold_broker.flows.rotation_events import given_up
from leasehold_broker.flows.rotation_steps import old_status
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_source import SourceFault
from leasehold_broker.ports.provider_keys import ProviderKeyFault
from leasehold_broker.ports.rotation_log import RotationLog

ATTEMPTS_MAX = 5
"""The rotation may take a step between the look and the word."""


class CancelRotation:
    """Of this log."""

    def __init__(
        self,
        log: RotationLog,
        read: ReadRotations,
        keys: Mapping[str, AnyRotated],
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        """Look through `read`; `wake` whoever drives rotations."""
        self._log = log
        self._read = read
        self._keys = keys
        self._clock = clock
        self._wake = wake

    async def run(self, subject: Subject, request_id: str, name: str, note: str) -> Rotation:
        """Give up this rotation; durable on return. Given up before: no effect.

        Raises:
            Refusal: FIELD_INVALID (the new key serves, or the present one does not work), KEY_UNAVAILABLE (it cannot be
                told whether that works), ROTATION_NOT_FOUND, CONCURRENT_UPDATE, STORE_UNAVAILABLE, OVERLOADED.
        """
        check_request_id(request_id)
        check_note(note)
        for _ in range(ATTEMPTS_MAX):
            rotation = await self._read.get(name)
            now = self._clock.now().wall_ms
            after = cancelled(rotation, shown_as(subject), note, now)
            if after is rotation:
                return rotation
            await self._check_left(rotation)
            try:
                await self._log.advance(None, rotation, after, given_up(rotation, after, subject, request_id, now))
            except Refusal as refusal:
                if refusal.reason is not Reason.CONCURRENT_UPDATE:
                    raise
                continue
            self._wake()
            return after
        raise Refusal(Reason.CONCURRENT_UPDATE, f"{name} takes one step after the other; ask again")

    async def _check_left(self, rotation: Rotation) -> None:
        """Go on when the key that serves now works."""
        if rotation.state is RotationState.PLANNED:
            return  # nothing was made, so nothing is taken away
        key = self._keys.get(rotation.key)
        if key is None:
            raise field_invalid("name", f"{rotation.key!r} is no key that is rotated here; configure it again first")
        if not isinstance(key, RotatedKey):
            said = "the engine may have made it already, and keeps no other; let it go on"
            raise field_invalid("name", f"{rotation.name} of an engine's own credential cannot be given up: {said}")
        try:
            status = await old_status(rotation, key)
        except (SourceFault, ProviderKeyFault) as fault:
            raise _untold(rotation, str(fault)) from None
        if refused(status):
            said = "its provider does not take the present key any more, so the new one is needed; let it go on"
            raise field_invalid("name", f"{rotation.name} cannot be given up: {said}")
        if not accepted(status):
            raise _untold(
                rotation, f"the provider answers {status} to it" if status else "the provider does not answer"
            )


def _untold(rotation: Rotation, why: str) -> Refusal:
    return Refusal(
        Reason.KEY_UNAVAILABLE,
        f"{rotation.name} was not given up: it is not sure that the present key of {rotation.key!r} works, and the "
        "new one may be needed; ask again once its provider and its store answer",
        detail=why,
    )
