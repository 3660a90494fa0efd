"""KeyService, at the collector and at the admin socket of a sidecar that runs alone. Words in, words out."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

from leasehold.v1 import key_service_pb2 as pb
from leasehold_broker.collector.access import Operators
from leasehold_broker.collector.rotators import Rotators
from leasehold_broker.domain.collector_rules import Role
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.domain.rotation import Rotation
from leasehold_broker.domain.secret import Secret
from leasehold_broker.flows.cancel_rotation import CancelRotation
from leasehold_broker.flows.read_rotations import ReadRotations
from leasehold_broker.flows.request_rotation import RequestRotation
from leasehold_broker.rpc.caller import CallContext
from leasehold_broker.rpc.server import Handlers
from leasehold_broker.wire.fields import check_known
from leasehold_broker.wire.rotations import rotation_to_proto

SERVICE = pb.DESCRIPTOR.services_by_name["KeyService"]
KEY_BYTES_MAX = 16 * 1024


class KeyDoor:
    """Handlers of KeyService."""

    def __init__(
        self,
        request: RequestRotation,
        cancel: CancelRotation,
        read: ReadRotations,
        rotators: Rotators,
        operators: Operators,
    ) -> None:
        """Call these flows for these callers."""
        self._request = request
        self._cancel = cancel
        self._read = read
        self._rotators = rotators
        self._operators = operators

    def handlers(self) -> Handlers:
        """By method name."""
        return {
            "RotateKey": self.rotate_key,
            "SupplyKey": self.supply_key,
            "CancelRotation": self.cancel_rotation,
            "GetRotation": self.get_rotation,
            "ListRotations": self.list_rotations,
            "WatchRotation": self.watch_rotation,
        }

    async def rotate_key(self, request: pb.RotateKeyRequest, call: CallContext) -> pb.RotateKeyResponse:
        """Ask for a rotation. Custodians, responders, and pipelines for their keys."""
        trigger = self._rotators.trigger_of(call.identity, request.key)
        check_known(request)
        rotation = await self._request.run(
            call.identity.subject, request.request_id, request.key, request.note, trigger
        )
        return pb.RotateKeyResponse(rotation=rotation_to_proto(rotation))

    async def supply_key(self, request: pb.SupplyKeyRequest, call: CallContext) -> pb.SupplyKeyResponse:
        """Take a key that a person has made. Custodians only."""
        self._operators.require(call.identity, Role.CUSTODIAN)
        check_known(request)
        try:
            value = Secret(request.key_value.encode())
        except ValueError:
            raise field_invalid("key_value", "must be printable ASCII without white space, on one line") from None
        if len(value) > KEY_BYTES_MAX:
            raise field_invalid("key_value", f"must be at most {KEY_BYTES_MAX} bytes")
        try:
            rotation = await self._request.supply(call.identity.subject, request.request_id, request.key, value)
        finally:
            value.wipe()
        return pb.SupplyKeyResponse(rotation=rotation_to_proto(rotation))

    async def cancel_rotation(self, request: pb.CancelRotationRequest, call: CallContext) -> pb.CancelRotationResponse:
        """Give up a rotation. Custodians only."""
        self._operators.require(call.identity, Role.CUSTODIAN)
        check_known(request)
        rotation = await self._cancel.run(call.identity.subject, request.request_id, request.name, request.note)
        return pb.CancelRotationResponse(rotation=rotation_to_proto(rotation))

    async def get_rotation(self, request: pb.GetRotationRequest, call: CallContext) -> pb.GetRotationResponse:
        """One rotation; a pipeline sees those of its keys."""
        return pb.GetRotationResponse(rotation=rotation_to_proto(await self._seen(request.name, call)))

    async def list_rotations(self, request: pb.ListRotationsRequest, call: CallContext) -> pb.ListRotationsResponse:
        """One page, newest first."""
        self._rotators.require_look(call.identity, request.key)
        check_known(request)
        found, token = await self._read.page(request.key, request.page_size, request.page_token)
        return pb.ListRotationsResponse(rotations=[rotation_to_proto(each) for each in found], next_page_token=token)

    async def watch_rotation(
        self, request: pb.WatchRotationRequest, call: CallContext
    ) -> AsyncIterator[pb.WatchRotationResponse]:
        """One rotation at once and at each change, until it is over."""
        await self._seen(request.name, call)
        watching = cast("AsyncGenerator[Rotation]", self._read.watch(request.name))
        async with aclosing(watching):
            async for rotation in watching:
                yield pb.WatchRotationResponse(rotation=rotation_to_proto(rotation))

    async def _seen(self, name: str, call: CallContext) -> Rotation:
        rotation = await self._read.get(name)
        self._rotators.require_look(call.identity, rotation.key)
        return rotation
