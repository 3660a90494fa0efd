"""Have a key switched off at its provider, together with a revocation of its leases. Owns what is checked beforehand.

The wish is in the revocation's event, in one transaction with the entry. Whoever takes the call asks at once; what
follows the log asks again for every such event, so a death between the two loses nothing, and both ask for the same.
"""

from collections.abc import Callable, Mapping, Sequence

from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Refusal, field_invalid
from leasehold_broker.domain.rotation import DisabledKey, Rotation, SwitchOff, Trigger
from leasehold_broker.flows.request_rotation import RequestRotation
from leasehold_broker.flows.rotated_key import AnyRotated, RotatedKey
from leasehold_broker.ports.event_sink import SinkFailedError
from leasehold_broker.ports.key_admin import KeyStage
from leasehold_broker.ports.key_source import FINAL, SourceFault
from leasehold_broker.ports.provider_keys import FINAL as PROVIDER_FINAL
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState

FIELD = "disable_key"


class DisableKey:
    """Asks for switch-offs."""

    def __init__(self, request: RequestRotation, keys: Mapping[str, AnyRotated]) -> None:
        """Of these keys."""
        self._request = request
        self._keys = keys

    async def check(self, name: str) -> DisabledKey:
        """What would be switched off and how, as far as its provider and its store answer.

        Raises:
            Refusal: FIELD_INVALID: it cannot be ended from here, and why.
        """
        key = self._keys.get(name)
        if key is None:
            raise _never(name, "no [[rotations]] names it, so nobody here may end it at its provider")
        if not isinstance(key, RotatedKey):
            raise _never(name, "its engine makes a credential for each lease; revoking the leases ends those")
        version, how = 0, key.at_provider.switch_off
        try:
            version = await key.version()
            key_id = await key.at_provider.current_id(await key.store.staged(name, KeyStage.CURRENT))
        except ProviderKeyFault as fault:
            if fault.state in PROVIDER_FINAL or fault.state is ProviderKeyState.BY_HAND:
                raise _never(name, str(fault)) from None
            return DisabledKey("", version, how)
        except SourceFault as fault:
            if fault.state in FINAL:
                raise _never(name, str(fault)) from None
            return DisabledKey("", version, how)
        if not key_id:
            raise _never(name, "its provider does not tell which of its keys this one is")
        return DisabledKey(key_id, version, how)

    async def ask(
        self, epoch: int, revoked_by: str, key: str, ended: DisabledKey, note: str, subject: Subject | None = None
    ) -> Rotation:
        """Ask for it, once for each revocation. Raises Refusal: FIELD_INVALID, STORE_UNAVAILABLE, OVERLOADED."""
        return await self._request.wish(revoked_by, f"disable/{epoch}", key, Trigger.INCIDENT, note, subject, ended)


class DisableRevoked:
    """Implements `EventSink`: heeds what revocations say."""

    def __init__(
        self, disable: DisableKey, read: Callable[[bytes], Event], passed_over: Callable[[str, str], None]
    ) -> None:
        """Ask through `disable`; `read` tells an event from its bytes; `passed_over` is told what is not done."""
        self._disable = disable
        self._read = read
        self._passed_over = passed_over

    async def deliver(self, records: Sequence[StoredRecord]) -> None:
        """See the port."""
        for stored in records:
            try:
                details = self._read(stored.record.body).details
            except ValueError:  # of a later version
                continue
            if details.get(FIELD) is not True:
                continue
            epoch, version = details.get("epoch"), details.get("disable_key_version")
            if not isinstance(epoch, int) or not isinstance(version, int):
                continue
            by, key, note = (str(details.get(name, "")) for name in ("revoked_by", "key", "note"))
            try:
                ended = DisabledKey(
                    str(details.get("disable_key_id", "")), version, _how(details.get("disable_key_by"))
                )
                await self._disable.ask(epoch, by, key, ended, note)
            except Refusal as refusal:
                if refusal.violations:  # it is configured no more
                    self._passed_over(f"revocations/{epoch}", refusal.message)
                    continue
                raise SinkFailedError(refusal.message) from None

    async def close(self) -> None:
        """See the port."""


def _how(told: object) -> SwitchOff | None:
    """As an event tells it; earlier builds told nothing."""
    return SwitchOff(told) if isinstance(told, str) and told in set(SwitchOff) else None


def _never(name: str, why: str) -> Refusal:
    return field_invalid(FIELD, f"key {name!r} cannot be disabled from here: {why}; leave it out to revoke alone")
