"""Which of several keys serves. Owns suitability for a mode, order of preference, and choice by weight."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from leasehold_broker.domain.keys import KeyKind, KeyRecord, KeyState
from leasehold_broker.domain.lease import Mode
from leasehold_broker.domain.reasons import Reason, Refusal


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """What a grant says of keys.

    Args:
        names: in order of preference.
        environment: the only one whose keys it gives.
        disclosed: those that may be handed out themselves.
        weights: where any has one, a key is drawn by weight; one without has weight 0: it serves when no other can.
    """

    names: tuple[str, ...]
    environment: str
    disclosed: tuple[str, ...]
    weights: Mapping[str, int]

    def suits(self, key: KeyRecord, mode: Mode) -> bool:
        """True when this mode may be exercised with this key."""
        match mode:
            case Mode.BROKERED:
                return key.brokered
            case Mode.MINTED:
                return key.kind in {KeyKind.FEDERATED, KeyKind.DYNAMIC}
            case Mode.DISCLOSED:
                return key.kind is KeyKind.STORED and key.name in self.disclosed

    def serving(self, provider: str, mode: Mode, keys: Iterable[KeyRecord]) -> list[KeyRecord]:
        """Every key that may serve, in order of preference."""
        by_name = {key.name: key for key in keys}
        held = [by_name[name] for name in self.names if name in by_name]
        return [
            key
            for key in held
            if key.provider == provider
            and key.environment == self.environment
            and key.state is KeyState.ENABLED
            and self.suits(key, mode)
        ]

    def choose(self, provider: str, wanted: str, mode: Mode, keys: Sequence[KeyRecord], draw: float) -> str:
        """The key for a new lease; `draw`, in [0, 1), is the chance that decides between weights.

        Raises:
            Refusal: KEY_DISABLED, DISCLOSURE_NOT_ALLOWED, ENVIRONMENT_MISMATCH, KEY_UNAVAILABLE.
        """
        serving = [key.name for key in self.serving(provider, mode, keys) if not wanted or key.name == wanted]
        if not serving:
            raise self._none(provider, wanted, mode, keys)
        total = sum(self.weights.get(name, 0) for name in serving)
        left = draw * total
        for name in serving if total else ():
            left -= self.weights.get(name, 0)
            if left < 0:
                return name
        return serving[0]

    def _none(self, provider: str, wanted: str, mode: Mode, keys: Iterable[KeyRecord]) -> Refusal:
        named = [
            key
            for key in keys
            if key.provider == provider and key.name in self.names and (not wanted or key.name == wanted)
        ]
        here = [key for key in named if key.environment == self.environment]
        if any(key.state is not KeyState.ENABLED for key in here):
            return Refusal(Reason.KEY_DISABLED, f"the granted key for {provider} is disabled; ask the platform team")
        if here:
            return Refusal(
                Reason.DISCLOSURE_NOT_ALLOWED,
                f"no granted key for {provider} serves in mode {mode}: minted needs a federated or dynamic key, "
                "disclosed one that the grant names under disclosed_keys, brokered one that a call can carry",
            )
        if named:
            return Refusal(
                Reason.ENVIRONMENT_MISMATCH,
                f"the granted key for {provider} belongs to another environment than {self.environment!r}",
            )
        return Refusal(
            Reason.KEY_UNAVAILABLE, f"no granted key for {provider} is in the store; ask the platform team to add one"
        )
