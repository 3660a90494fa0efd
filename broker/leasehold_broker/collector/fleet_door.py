"""FleetService. Words in, words out."""

from leasehold.v1 import fleet_service_pb2 as pb
from leasehold_broker.collector.access import Operators
from leasehold_broker.domain.collector_rules import Role
from leasehold_broker.flows.enrolment import Enrolment, Standing
from leasehold_broker.rpc.caller import CallContext
from leasehold_broker.rpc.server import Handlers
from leasehold_broker.wire.fields import check_known
from leasehold_broker.wire.records import timestamp

SERVICE = pb.DESCRIPTOR.services_by_name["FleetService"]


class FleetDoor:
    """Handlers of FleetService."""

    def __init__(self, enrolment: Enrolment, operators: Operators) -> None:
        """Call this flow for these operators."""
        self._enrolment = enrolment
        self._operators = operators

    def handlers(self) -> Handlers:
        """By method name."""
        return {
            "ListSidecars": self.list_sidecars,
            "BanSidecar": self.ban_sidecar,
            "ReadmitSidecar": self.readmit_sidecar,
            "EvictSidecar": self.evict_sidecar,
        }

    async def list_sidecars(self, request: pb.ListSidecarsRequest, call: CallContext) -> pb.ListSidecarsResponse:
        """All of them."""
        self._operators.require(call.identity, Role.RESPONDER, Role.AUDITOR)
        check_known(request)
        return pb.ListSidecarsResponse(sidecars=map(_to_proto, self._enrolment.standings()))

    async def ban_sidecar(self, request: pb.BanSidecarRequest, call: CallContext) -> pb.BanSidecarResponse:
        """Responders only."""
        self._operators.require(call.identity, Role.RESPONDER)
        check_known(request)
        standing = await self._enrolment.ban(call.identity, request.sidecar, request.note)
        return pb.BanSidecarResponse(sidecar=_to_proto(standing))

    async def readmit_sidecar(self, request: pb.ReadmitSidecarRequest, call: CallContext) -> pb.ReadmitSidecarResponse:
        """Responders only."""
        self._operators.require(call.identity, Role.RESPONDER)
        check_known(request)
        standing = await self._enrolment.readmit(call.identity, request.sidecar, request.note)
        return pb.ReadmitSidecarResponse(sidecar=_to_proto(standing))

    async def evict_sidecar(self, request: pb.EvictSidecarRequest, call: CallContext) -> pb.EvictSidecarResponse:
        """Responders only."""
        self._operators.require(call.identity, Role.RESPONDER)
        check_known(request)
        await self._enrolment.evict(call.identity, request.sidecar, request.note)
        return pb.EvictSidecarResponse()


def _to_proto(standing: Standing) -> pb.SidecarStanding:
    shown = pb.SidecarStanding(name=standing.name, lapsed=standing.lapsed)
    if standing.member is not None:
        known = standing.member.known
        shown.environment, shown.version, shown.applied_epoch = known.environment, known.version, known.applied_epoch
        shown.connected = standing.member.connected
        shown.last_heard_time.CopyFrom(timestamp(known.last_heard_wall_ms))
    if standing.ban is not None:
        ban = standing.ban
        create_time = timestamp(ban.create_wall_ms)
        shown.ban.CopyFrom(pb.SidecarBan(note=ban.note, banned_by=ban.banned_by, create_time=create_time))
    return shown
