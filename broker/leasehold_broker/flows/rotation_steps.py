"""The one thing that each state of a rotation asks to be done. Owns the order of effects within a step.

Each step is safe to repeat at any time, after a crash at any line. A freshly minted value is held here between the
record of its id and its storing: if the process dies meanwhile the provider is asked again, ends the lost key first
(its port's promise) and makes another. Refuses to end a key that serves.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from leasehold_broker.domain.rotation import Purpose, Rotation, RotationState, Trigger
from leasehold_broker.domain.rotation_transitions import (
    Done,
    Drained,
    Faulted,
    Identified,
    Minted,
    NeedsPerson,
    Outcome,
    Probed,
    Promoted,
    Stored,
    accepted,
    refused,
)
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.disable_steps import disable_step
from leasehold_broker.flows.root_steps import RotatedRoot, root_step
from leasehold_broker.flows.rotated_key import AnyRotated, RotatedKey
from leasehold_broker.ports.key_admin import KeyStage
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.ports.key_users import KeyUsers
from leasehold_broker.ports.provider_keys import FINAL as PROVIDER_FINAL
from leasehold_broker.ports.provider_keys import ProviderKey, ProviderKeyFault, ProviderKeyState

_STORE_FINAL = frozenset(
    {SourceState.DENIED, SourceState.MISSING, SourceState.DISABLED, SourceState.MALFORMED, SourceState.CONFLICT}
)
SERVES = "the key to be ended is the one that serves; nothing was ended"


class RotationSteps:
    """Takes one step at a time; holds nothing but values that are not stored yet."""

    def __init__(self, users: KeyUsers) -> None:
        """Ask `users` who still needs an old version."""
        self._users = users
        self._fresh: dict[str, ProviderKey] = {}

    async def take(self, rotation: Rotation, key: AnyRotated, since: Instant, earlier: Rotation | None) -> Outcome:
        """Do what the state asks for.

        Args:
            rotation: not over.
            key: the same key.
            since: when this process took up the state.
            earlier: the rotation of this key before this one; over, or None.
        """
        if isinstance(key, RotatedRoot):
            return await _guarded(lambda: root_step(rotation, key))
        if rotation.purpose is Purpose.DISABLE:
            return await _guarded(lambda: disable_step(rotation, key))
        if rotation.state is RotationState.PLANNED:
            return await _guarded(lambda: self._identify(key, earlier))
        if rotation.state is RotationState.DRAINING:
            return Drained(tuple(self._users.of_older(key.name, rotation.version, since)))
        step = self._steps()[rotation.state]
        return await _guarded(lambda: step(rotation, key))

    def forget(self, rotation: Rotation) -> None:
        """Nothing of this rotation is needed any more."""
        fresh = self._fresh.pop(rotation.id, None)
        if fresh is not None:
            fresh.value.wipe()

    def forget_all(self) -> None:
        """The same for every rotation."""
        for fresh in self._fresh.values():
            fresh.value.wipe()
        self._fresh.clear()

    async def lost(self, found: Rotation, key: AnyRotated) -> None:
        """The record of a step was refused: a key that was minted for it, and is known nowhere, is ended again.

        Args:
            found: the rotation as it is. While its next step is to mint, whoever leads finds the key by its mark; it
                may be the very same key, where the provider gives a repeated mint the first one.
            key: the same key.
        """
        fresh = self._fresh.get(found.id)
        if fresh is None or not isinstance(key, RotatedKey):
            return
        self.forget(found)
        if found.state is not RotationState.MINTING and fresh.id not in {found.new_key_id, found.old_key_id}:
            with contextlib.suppress(ProviderKeyFault):
                await key.at_provider.end(fresh.id)

    def _steps(self) -> Mapping[RotationState, Callable[[Rotation, RotatedKey], Awaitable[Outcome]]]:
        return {
            RotationState.MINTING: self._mint,
            RotationState.AWAITING_KEY: self._await,
            RotationState.PROBING: self._probe_new,
            RotationState.PROMOTING: self._promote,
            RotationState.ENDING: self._end_old,
            RotationState.VERIFYING: self._probe_old,
            RotationState.FORGETTING: self._forget_old,
            RotationState.ABANDONING: self._abandon,
        }

    async def _identify(self, key: RotatedKey, earlier: Rotation | None) -> Outcome:
        if earlier is not None:
            # What a failed rotation could not clean up would stand in the way of every later one.
            stages = await key.store.stages(key.name, earlier.id)
            if stages.mine and (stages.pending or stages.previous):
                await key.store.retire(key.name, earlier.id)
        return Identified(await key.id_of(await key.store.staged(key.name, KeyStage.CURRENT)))

    async def _mint(self, rotation: Rotation, key: RotatedKey) -> Outcome:
        stages = await key.store.stages(key.name, rotation.id)
        if stages.mine:
            return Stored()
        if stages.pending or stages.previous:
            return Faulted(f"a value of another rotation is in the store of {key.name!r}", final=True)
        fresh = self._fresh.get(rotation.id)
        if fresh is None:
            fresh = self._fresh[rotation.id] = await key.at_provider.mint(rotation.id)
        if fresh.id != rotation.new_key_id:
            # Its record comes first; while that cannot be made, the same key is kept and no other one minted.
            return Minted(fresh.id)
        await key.store.put_pending(key.name, fresh.value, rotation.id)
        self.forget(rotation)
        return Stored()

    async def _await(self, rotation: Rotation, key: RotatedKey) -> Outcome:
        stages = await key.store.stages(key.name, rotation.id)
        if not stages.mine:
            return Faulted(rotation.why)
        if not stages.pending:
            return Stored()
        return Stored(await key.id_of(await key.store.staged(key.name, KeyStage.PENDING)))

    async def _probe_new(self, rotation: Rotation, key: RotatedKey) -> Outcome:
        if not key.limits.probed:
            return Done()
        stages = await key.store.stages(key.name, rotation.id)
        if not stages.mine:
            return Faulted("the new value is in the store no more: another hand has changed the key", final=True)
        stage = KeyStage.PENDING if stages.pending else KeyStage.CURRENT
        return Probed(await key.status(await key.store.staged(key.name, stage)))

    async def _promote(self, rotation: Rotation, key: RotatedKey) -> Outcome:
        await key.store.promote(key.name, rotation.id)
        return await _promoted(key)

    async def _end_old(self, rotation: Rotation, key: RotatedKey) -> Outcome:
        if rotation.old_key_id:
            if await _serves(key, rotation.old_key_id):
                return Faulted(SERVES, final=True)
            if (found := await _new_works(rotation, key)) is not None:
                return found
            await key.at_provider.end(rotation.old_key_id)
        if rotation.new_key_id:
            # A request to mint that was given up long ago may have been heard after all.
            await key.at_provider.sweep(rotation.id, rotation.new_key_id)
        if rotation.old_key_id:
            return Done()
        return NeedsPerson("the provider's id of the old key cannot be told: end that key at the provider by hand")

    async def _probe_old(self, _rotation: Rotation, key: RotatedKey) -> Outcome:
        if not key.limits.probed:
            return Done()
        return Probed(await key.status(await key.store.staged(key.name, KeyStage.PREVIOUS)))

    async def _forget_old(self, rotation: Rotation, key: RotatedKey) -> Outcome:
        await key.store.retire(key.name, rotation.id)
        return Done()

    async def _abandon(self, rotation: Rotation, key: RotatedKey) -> Outcome:
        self.forget(rotation)
        stages = await key.store.stages(key.name, rotation.id)
        if stages.mine and not stages.pending:
            return await _promoted(key)
        if stages.mine and await _only_new_works(rotation, key):
            return await self._promote(rotation, key)
        if stages.mine:
            await key.store.retire(key.name, rotation.id)
        serving = await key.id_of(await key.store.staged(key.name, KeyStage.CURRENT))
        if rotation.new_key_id:
            if serving == rotation.new_key_id:
                return Faulted(SERVES, final=True)
            await key.at_provider.end(rotation.new_key_id)
        # What was made may be unknown by id: its answer was lost, and no later attempt came through.
        await key.at_provider.sweep(rotation.id, serving)
        return Done()


async def _guarded(step: Callable[[], Awaitable[Outcome]]) -> Outcome:
    try:
        return await step()
    except SourceFault as fault:
        return Faulted(f"key store: {fault}", fault.state in _STORE_FINAL, fault.retry_after_seconds or 0.0)
    except ProviderKeyFault as fault:
        if fault.state is ProviderKeyState.BY_HAND:
            return NeedsPerson(str(fault))
        return Faulted(f"provider: {fault}", fault.state in PROVIDER_FINAL, fault.retry_after_seconds or 0.0)


async def _promoted(key: RotatedKey) -> Outcome:
    return Promoted(await key.version())


async def old_status(rotation: Rotation, key: RotatedKey) -> int:
    """The provider's answer to the value that serves. Where there is no harmless call, whether it knows that one's id.

    Raises:
        SourceFault, ProviderKeyFault: it cannot be told.
    """
    current = await key.store.staged(key.name, KeyStage.CURRENT)
    if key.limits.probed:
        return await key.status(current)
    return 401 if rotation.old_key_id and not await key.id_of(current) else 200


async def _only_new_works(rotation: Rotation, key: RotatedKey) -> bool:
    """True when to go back would leave no key that works; a provider that refuses everything proves nothing."""
    if not refused(await old_status(rotation, key)):
        return False
    pending = await key.store.staged(key.name, KeyStage.PENDING)
    return not key.limits.probed or accepted(await key.status(pending))


async def _new_works(rotation: Rotation, key: RotatedKey) -> Outcome | None:
    """None: the old key may be ended. A key that works when it is promoted need not work when the drain is over.

    Somebody may have ended it; so may a request to mint that was held up, where the other side ends what it made for
    the same rotation before. A leaked key is ended all the same: it is in wrong hands, and does not serve any more.
    """
    if rotation.trigger is Trigger.INCIDENT or not key.limits.probed:
        return None
    status = await key.status(await key.store.staged(key.name, KeyStage.CURRENT))
    if accepted(status) or status == HTTPStatus.TOO_MANY_REQUESTS:
        return None
    if not refused(status):
        return Faulted("the provider does not say that the new key works" + (f" ({status})" if status else ""))
    if rotation.new_key_id:
        await key.at_provider.sweep(rotation.id, rotation.new_key_id)
    return Probed(status)


async def _serves(key: RotatedKey, key_id: str) -> bool:
    return key_id == await key.id_of(await key.store.staged(key.name, KeyStage.CURRENT))
