"""What each state of a rotation asks to be done where an engine replaces its own credential, which nobody is shown.

There is no value to store, promote or end, and no way back: so the engine has to issue a credential before anything is
changed, and again before the rotation is done. Refuses to begin with an engine that does not work.
"""

from dataclasses import dataclass

from leasehold_broker.domain.rotation import Rotation, RotationLimits, RotationState
from leasehold_broker.domain.rotation_transitions import Done, Identified, NeedsPerson, Outcome, Proven, Replaced
from leasehold_broker.ports.engine_root import EngineRoot
from leasehold_broker.ports.provider_keys import ProviderKeyFault


@dataclass(frozen=True, slots=True)
class RotatedRoot:
    """A key of a secret engine, and the engine's own credential, which is what is rotated.

    Args:
        name, provider, environment: of the key.
        root: replaces the credential, and tries the engine by this key.
        limits: how long each part may take.
    """

    name: str
    provider: str
    environment: str
    root: EngineRoot
    limits: RotationLimits


async def root_step(rotation: Rotation, key: RotatedRoot) -> Outcome:
    """Do what the state asks for. Raises ProviderKeyFault."""
    match rotation.state:
        case RotationState.PLANNED:
            await key.root.check()
            return Identified("")
        case RotationState.MINTING:
            await key.root.rotate()
            return Replaced()
        case RotationState.PROBING:
            await key.root.check()
            return Proven()
        case RotationState.ABANDONING:
            return await _given_up(key)
        case _:
            message = f"a rotation of an engine's own credential is never {rotation.state}"
            raise ValueError(message)


async def _given_up(key: RotatedRoot) -> Outcome:
    """Nothing can be undone: what matters is whether the engine works."""
    try:
        await key.root.check()
    except ProviderKeyFault as fault:
        return NeedsPerson(f"the engine issues no credential ({fault}); give it a credential that works by hand")
    return Done()
