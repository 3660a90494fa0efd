"""What each state of a switch-off asks to be done: the key that serves is refused by its provider, and none follows.

The value stays in its store: which one it is that has to be seen dead, its version tells. What a rotation of the same
key has promoted meanwhile is not touched.
"""

from leasehold_broker.domain.rotation import Rotation, RotationState
from leasehold_broker.domain.rotation_transitions import Done, Identified, NeedsPerson, Outcome, Probed, SwitchedOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.flows.rotated_key import RotatedKey
from leasehold_broker.ports.key_admin import KeyStage


async def disable_step(rotation: Rotation, key: RotatedKey) -> Outcome:
    """Do what the state asks for. Raises SourceFault, ProviderKeyFault."""
    match rotation.state:
        case RotationState.PLANNED:
            version = rotation.version or await key.version()
            found = rotation.old_key_id or await key.id_of(await _value(rotation, key))
            return Identified(found, version)
        case RotationState.ENDING:
            if not rotation.old_key_id:
                return NeedsPerson("its id cannot be told: end that key at the provider by hand")
            await key.at_provider.disable(rotation.old_key_id)
            return SwitchedOff(key.at_provider.switch_off)
        case RotationState.VERIFYING:
            return await _tried(rotation, key)
        case RotationState.FORGETTING:
            return Done()
        case _:
            message = f"a switch-off is never {rotation.state}"
            raise ValueError(message)


async def _tried(rotation: Rotation, key: RotatedKey) -> Outcome:
    """The provider's answer to the value that was in use when this was asked for.

    Done without one where there is nothing to try any more: the provider has said that the key is ended, and a rotation
    of the same key has let the store forget the value.
    """
    if not key.limits.probed:
        return Done()
    if rotation.version not in {0, await key.version()}:
        stages = await key.store.stages(key.name, rotation.id)
        if not stages.previous:
            return Done()
    return Probed(await key.status(await _value(rotation, key)))


async def _value(rotation: Rotation, key: RotatedKey) -> Secret:
    """The value that was in use when this was asked for. Raises SourceFault: it is in the store no more."""
    if rotation.version in {0, await key.version()}:
        return await key.store.staged(key.name, KeyStage.CURRENT)
    return await key.store.staged(key.name, KeyStage.PREVIOUS)
