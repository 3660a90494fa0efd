"""What the fault of a store means where a key is made: minters over a store's own client."""

from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState

_STATES = {
    SourceState.UNREACHABLE: ProviderKeyState.UNREACHABLE,
    SourceState.SEALED: ProviderKeyState.FAILING,
    SourceState.STANDBY: ProviderKeyState.FAILING,
    SourceState.RATE_LIMITED: ProviderKeyState.RATE_LIMITED,
    SourceState.FAILING: ProviderKeyState.FAILING,
    SourceState.LOGIN_REFUSED: ProviderKeyState.LOGIN_REFUSED,
    SourceState.DENIED: ProviderKeyState.DENIED,
    SourceState.MISSING: ProviderKeyState.MALFORMED,
    SourceState.MALFORMED: ProviderKeyState.MALFORMED,
}


def key_fault(fault: SourceFault) -> ProviderKeyFault:
    """The fault of a store, said of a provider."""
    return ProviderKeyFault(_STATES.get(fault.state, ProviderKeyState.FAILING), str(fault), fault.retry_after_seconds)
