"""How often somebody may be refused at signing in. Owns the count for each address; told the time.

Each refused sign-in is an event, and may ask the identity provider: a stranger must not fill the log, or the provider's
day, as fast as they can send. Beyond the bound they are turned away before anything is asked; the last event says it.
"""

from collections import OrderedDict

from leasehold_broker.domain.time import NANOS, Instant

BURST = 20
SECONDS_EACH = 5
ADDRESSES_MAX = 4096


class SignInBrake:
    """Refusals by address: a burst, and one more every few seconds."""

    def __init__(self) -> None:
        """Nobody has been refused."""
        self._spent_until_ns: OrderedDict[str, int] = OrderedDict()

    def is_spent(self, address: str, now: Instant) -> bool:
        """This address has been refused too often to be heard now."""
        return self._spent_until_ns.get(address, 0) - now.boot_ns > (BURST - 1) * SECONDS_EACH * NANOS

    def refused(self, address: str, now: Instant) -> bool:
        """One more refusal; True when it was the last for a while. Who was refused longest ago is forgotten first."""
        until = max(self._spent_until_ns.get(address, 0), now.boot_ns) + SECONDS_EACH * NANOS
        self._spent_until_ns[address] = until
        self._spent_until_ns.move_to_end(address)
        if len(self._spent_until_ns) > ADDRESSES_MAX:
            self._spent_until_ns.popitem(last=False)
        return self.is_spent(address, now)
