"""Rotations in memory, with the events that came with them. Implements `RotationLog`."""

from leasehold_broker.domain.leads import LeadWatch, taken_by
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.rotation_log import Lead


class MemoryRotationLog:
    """Survives the death of those who use it, as a file would. `fresh_life`: whoever led is known to be dead."""

    def __init__(self):
        """Start empty."""
        self.rotations = {}
        self.requests = {}
        self.events = []
        self.held = None
        self.watch = LeadWatch()
        self.fresh_life = False

    async def take_lead(self, holder, seconds, now):
        """See the port."""
        free = self.held is not None and (self.fresh_life or self.watch.lapsed(self.held, seconds, now))
        taken = taken_by(self.held, holder, free=free)
        if taken is None:
            return None
        self.held, self.fresh_life = taken, False
        return Lead(taken.holder, taken.fence)

    async def request(self, request, describe):
        """See the port."""
        wanted = request.rotation
        asked = (wanted.requested_by, request.request_id)
        if asked in self.requests:
            found = self.rotations[self.requests[asked]]
            if found.key != wanted.key:
                raise Refusal(Reason.REQUEST_ID_REUSED, "used for another key")
            return found
        mine = [each for each in self.rotations.values() if each.key == wanted.key and not each.over]
        found = next((each for each in reversed(mine) if each.takes(wanted)), wanted)
        if found is wanted:
            self.rotations[wanted.id] = wanted
            self.events.append(describe(wanted))
        self.requests[asked] = found.id
        return found

    async def advance(self, lead, before, after, event):
        """See the port."""
        held = self.held and Lead(self.held.holder, self.held.fence)
        if (lead is not None and lead != held) or self.rotations[before.id] != before:
            raise Refusal(Reason.CONCURRENT_UPDATE, "not as it was")
        self.rotations[before.id] = after
        if event is not None:
            self.events.append(event)

    async def open_rotations(self):
        """See the port."""
        return [each for each in self.rotations.values() if not each.over]

    async def find_rotation(self, rotation_id):
        """See the port."""
        return self.rotations.get(rotation_id)

    async def last_rotations(self, key, limit, before_id=""):
        """See the port."""
        ids = list(self.rotations)
        known = ids[: ids.index(before_id)] if before_id in ids else [] if before_id else ids
        return [self.rotations[each] for each in reversed(known) if key in {"", self.rotations[each].key}][:limit]
