"""Rotations in memory, with the events that came with them. Implements `RotationLog`."""

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.rotation import OLD_SERVES
from leasehold_broker.ports.rotation_log import Lead


class MemoryRotationLog:
    """Survives the death of those who use it, as a file would."""

    def __init__(self):
        """Start empty."""
        self.rotations = {}
        self.requests = {}
        self.events = []
        self.lead = None
        self.until_ms = 0

    async def take_lead(self, holder, seconds, wall_ms):
        """See the port."""
        if self.lead is not None and self.lead.holder != holder and self.until_ms > wall_ms:
            return None
        if self.lead is None or self.lead.holder != holder:
            self.lead = Lead(holder, 1 if self.lead is None else self.lead.fence + 1)
        self.until_ms = wall_ms + round(seconds * 1000)
        return self.lead

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
        found = mine[-1] if mine and mine[-1].state in OLD_SERVES else wanted
        if found is wanted:
            self.rotations[wanted.id] = wanted
            self.events.append(describe(wanted))
        self.requests[asked] = found.id
        return found

    async def advance(self, lead, before, after, event):
        """See the port."""
        if lead != self.lead or self.rotations[before.id] != before:
            raise Refusal(Reason.CONCURRENT_UPDATE, "not as it was")
        self.rotations[before.id] = after
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
