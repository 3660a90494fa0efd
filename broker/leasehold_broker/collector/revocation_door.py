"""RevocationService, at the collector and at the admin socket of a sidecar that runs alone. Words in, words out."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

from leasehold.v1 import revocation_service_pb2 as pb
from leasehold_broker.collector.access import Operators
from leasehold_broker.domain.collector_rules import Role
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.domain.revocation import ByKey, Selector
from leasehold_broker.domain.revocation_progress import RevocationProgress
from leasehold_broker.domain.rotation import DisabledKey, Trigger
from leasehold_broker.flows.disable_key import DisableKey
from leasehold_broker.flows.issue_revocation import IssuedRevocation, IssueRevocation
from leasehold_broker.flows.lift_revocation import LiftRevocation
from leasehold_broker.flows.read_revocations import ReadRevocations
from leasehold_broker.flows.request_rotation import RequestRotation
from leasehold_broker.rpc.caller import CallContext
from leasehold_broker.rpc.server import Handlers
from leasehold_broker.wire.fields import check_known
from leasehold_broker.wire.revocations import (
    order_from_proto,
    progress_to_proto,
    revocation_to_proto,
    selector_from_proto,
)
from leasehold_broker.wire.rotations import switch_off_to_proto

SERVICE = pb.DESCRIPTOR.services_by_name["RevocationService"]


class RevocationDoor:
    """Handlers of RevocationService."""

    def __init__(
        self,
        issue: IssueRevocation,
        lift: LiftRevocation,
        read: ReadRevocations,
        operators: Operators,
        rotate: RequestRotation | None = None,
        disable: DisableKey | None = None,
    ) -> None:
        """Call these flows for these operators; without `rotate` and `disable` no key is rotated here."""
        self._rotate = rotate
        self._disable = disable
        self._issue = issue
        self._lift = lift
        self._read = read
        self._operators = operators

    def handlers(self) -> Handlers:
        """By method name."""
        return {
            "RevokeLeases": self.revoke_leases,
            "LiftRevocation": self.lift_revocation,
            "GetRevocation": self.get_revocation,
            "ListRevocations": self.list_revocations,
            "WatchRevocation": self.watch_revocation,
        }

    async def revoke_leases(self, request: pb.RevokeLeasesRequest, call: CallContext) -> pb.RevokeLeasesResponse:
        """Revoke, or say what would die. Responders only."""
        self._operators.require(call.identity, Role.RESPONDER)
        check_known(request)
        if request.selectors:
            return await self._revoke_several(request, call)
        selector = selector_from_proto(request.selector)
        key = self._rotated(request, selector)
        disables = await self._disabled(request, selector)
        issued = await self._issue.run(
            call.identity,
            request.request_id,
            selector,
            request.note,
            order=order_from_proto(request),
            leases_max=request.leases_max if request.HasField("leases_max") else None,
            disables=disables,
            validate_only=request.validate_only,
        )
        rotation = ""
        if disables is not None and self._disable is not None and issued.progress is not None:
            entry, subject = issued.progress.revocation, call.identity.subject
            asked = (entry.epoch, entry.revoked_by, request.selector.key, disables, entry.note, subject)
            rotation = (await self._disable.ask(*asked)).name
        if key is not None and self._rotate is not None and not request.validate_only:
            # After the revocation, so that its failure leaves leases dead; asked again, both are the same ones.
            incident = (call.identity.subject, request.request_id, key, request.note, Trigger.INCIDENT)
            rotation = (await self._rotate.run(*incident)).name
        return pb.RevokeLeasesResponse(
            rotation=rotation,
            disabled_key_id="" if disables is None else disables.id,
            switch_off=switch_off_to_proto(None if disables is None else disables.switch_off),
            progress=None if issued.progress is None else progress_to_proto(issued.progress),
            matching_leases=issued.matching.names,
            matching_incomplete=not issued.matching.complete,
            holders=_holders(issued) if request.validate_only else (),
        )

    async def _revoke_several(self, request: pb.RevokeLeasesRequest, call: CallContext) -> pb.RevokeLeasesResponse:
        if request.HasField("selector"):
            raise field_invalid("selectors", "does not go with selector; name all of them here")
        if request.rotate_key or request.disable_key:
            raise field_invalid("selectors", "does not go with rotate_key or disable_key; ask for that key alone")
        issued = await self._issue.run_all(
            call.identity,
            request.request_id,
            [selector_from_proto(selector) for selector in request.selectors],
            request.note,
            order=order_from_proto(request),
            leases_max=request.leases_max if request.HasField("leases_max") else None,
            validate_only=request.validate_only,
        )
        return pb.RevokeLeasesResponse(
            progress=None if issued.progress is None else progress_to_proto(issued.progress),
            matching_leases=issued.matching.names,
            matching_incomplete=not issued.matching.complete,
            holders=_holders(issued) if request.validate_only else (),
            first_name=issued.first_name,
            selector_leases=issued.matching.each,
        )

    def _rotated(self, request: pb.RevokeLeasesRequest, selector: Selector) -> str | None:
        """The key that is to be rotated too, known to be one that can be."""
        if not request.rotate_key:
            return None
        if not isinstance(selector, ByKey):
            raise field_invalid("rotate_key", "goes with a key as selector only: name the key that is to be rotated")
        if self._rotate is None:
            raise field_invalid("rotate_key", "is not served here: no key is rotated; leave it out to revoke alone")
        self._rotate.check_known(selector.key)
        return selector.key

    async def _disabled(self, request: pb.RevokeLeasesRequest, selector: Selector) -> DisabledKey | None:
        """What is to be ended at its provider, known to be something that can be."""
        if not request.disable_key:
            return None
        if not isinstance(selector, ByKey):
            raise field_invalid("disable_key", "goes with a key as selector only: name the key that is to be disabled")
        if request.rotate_key:
            raise field_invalid("disable_key", "does not go with rotate_key, which ends the old key too; choose one")
        if self._disable is None:
            raise field_invalid("disable_key", "is not served here: no key is rotated; leave it out to revoke alone")
        return await self._disable.check(selector.key)

    async def lift_revocation(self, request: pb.LiftRevocationRequest, call: CallContext) -> pb.LiftRevocationResponse:
        """Let what was blocked acquire leases again. Responders only."""
        self._operators.require(call.identity, Role.RESPONDER)
        check_known(request)
        if request.names and request.name:
            raise field_invalid("names", "does not go with name; name all of them here")
        if not request.names:
            lifted = await self._lift.run(call.identity, request.request_id, request.name, request.note)
            return pb.LiftRevocationResponse(progress=progress_to_proto(lifted.progress), already_lifted=lifted.already)
        lifted = await self._lift.run_all(call.identity, request.request_id, request.names, request.note)
        return pb.LiftRevocationResponse(
            progress=progress_to_proto(lifted.progress),
            already_lifted=lifted.already,
            blocks=[
                pb.LiftedBlock(name=block.name, lifted_by=revocation_to_proto(block.by), already_lifted=block.already)
                for block in lifted.blocks
            ],
        )

    async def get_revocation(self, request: pb.GetRevocationRequest, call: CallContext) -> pb.GetRevocationResponse:
        """One entry with its progress."""
        self._operators.require(call.identity, Role.RESPONDER, Role.AUDITOR)
        return pb.GetRevocationResponse(progress=progress_to_proto(await self._read.get(request.name)))

    async def list_revocations(
        self, request: pb.ListRevocationsRequest, call: CallContext
    ) -> pb.ListRevocationsResponse:
        """One page, newest first."""
        self._operators.require(call.identity, Role.RESPONDER, Role.AUDITOR)
        entries, token = await self._read.page(request.page_size, request.page_token)
        return pb.ListRevocationsResponse(
            revocations=[revocation_to_proto(entry) for entry in entries], next_page_token=token
        )

    async def watch_revocation(
        self, request: pb.WatchRevocationRequest, call: CallContext
    ) -> AsyncIterator[pb.WatchRevocationResponse]:
        """The progress at once and at each change, until it is complete."""
        self._operators.require(call.identity, Role.RESPONDER, Role.AUDITOR)
        watching = self._read.watch(request.name, first_name=request.first_name, changes_only=request.changes_only)
        async with aclosing(cast("AsyncGenerator[RevocationProgress]", watching)):
            async for progress in watching:
                yield pb.WatchRevocationResponse(
                    progress=progress_to_proto(progress), changes_only=progress.changes_only
                )


def _holders(issued: IssuedRevocation) -> list[pb.LeaseHolder]:
    return [
        pb.LeaseHolder(sidecar=whose.sidecar, issuer=whose.issuer, subject=whose.subject, leases=count)
        for whose, count in issued.matching.holders
    ]
