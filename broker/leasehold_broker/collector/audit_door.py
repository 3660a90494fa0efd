"""AuditService: pages, tail, checkpoint and proofs of the log, for auditors and responders. Words in, words out."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

from leasehold.v1 import audit_service_pb2 as pb
from leasehold_broker.collector.access import Operators
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.domain.collector_rules import Role
from leasehold_broker.flows.prove import Prove
from leasehold_broker.flows.read_audit import ReadAudit
from leasehold_broker.rpc.caller import CallContext
from leasehold_broker.rpc.server import Handlers
from leasehold_broker.wire.fields import check_known
from leasehold_broker.wire.records import checkpoint_to_proto, filter_from_proto, head_to_proto, stored_to_proto

SERVICE = pb.DESCRIPTOR.services_by_name["AuditService"]


class AuditDoor:
    """Handlers of AuditService."""

    def __init__(self, read: ReadAudit, prove: Prove, operators: Operators) -> None:
        """Call these flows for these operators."""
        self._read = read
        self._prove = prove
        self._operators = operators

    def handlers(self) -> Handlers:
        """By method name."""
        return {
            "ListEvents": self.list_events,
            "WatchEvents": self.watch_events,
            "ListStreams": self.list_streams,
            "GetCheckpoint": self.get_checkpoint,
            "GetInclusionProof": self.get_inclusion_proof,
            "GetConsistencyProof": self.get_consistency_proof,
        }

    async def list_events(self, request: pb.ListEventsRequest, call: CallContext) -> pb.ListEventsResponse:
        """One page of what matches."""
        self._operators.require(call.identity, Role.AUDITOR, Role.RESPONDER)
        check_known(request)
        found, token = await self._read.page(filter_from_proto(request), request.page_size, request.page_token)
        return pb.ListEventsResponse(events=stored_to_proto(found), next_page_token=token)

    async def watch_events(
        self, request: pb.WatchEventsRequest, call: CallContext
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """The log as it grows."""
        self._operators.require(call.identity, Role.AUDITOR, Role.RESPONDER)
        after = request.after_position if request.HasField("after_position") else None
        tail = cast("AsyncGenerator[Sequence[StoredRecord]]", self._read.watch(after))
        async with aclosing(tail):
            async for records in tail:
                yield pb.WatchEventsResponse(events=stored_to_proto(records))

    async def list_streams(self, _request: pb.ListStreamsRequest, call: CallContext) -> pb.ListStreamsResponse:
        """The last record of every life of every stream."""
        self._operators.require(call.identity, Role.AUDITOR, Role.RESPONDER)
        return pb.ListStreamsResponse(heads=[head_to_proto(head) for head in await self._read.heads()])

    async def get_checkpoint(self, _request: pb.GetCheckpointRequest, call: CallContext) -> pb.GetCheckpointResponse:
        """The newest signed head."""
        self._operators.require(call.identity, Role.AUDITOR, Role.RESPONDER)
        checkpoint = checkpoint_to_proto(self._prove.checkpoint())
        return pb.GetCheckpointResponse(checkpoint=checkpoint, verifier_key=self._prove.verifier_key)

    async def get_inclusion_proof(
        self, request: pb.GetInclusionProofRequest, call: CallContext
    ) -> pb.GetInclusionProofResponse:
        """That one event is in the tree."""
        self._operators.require(call.identity, Role.AUDITOR, Role.RESPONDER)
        check_known(request)
        found = await self._prove.inclusion(request.position)
        return pb.GetInclusionProofResponse(
            event=stored_to_proto([found.stored])[0],
            checkpoint=checkpoint_to_proto(found.checkpoint),
            hashes=found.hashes,
        )

    async def get_consistency_proof(
        self, request: pb.GetConsistencyProofRequest, call: CallContext
    ) -> pb.GetConsistencyProofResponse:
        """That the tree only grew."""
        self._operators.require(call.identity, Role.AUDITOR, Role.RESPONDER)
        check_known(request)
        newest, hashes = await self._prove.consistency(request.old_size)
        return pb.GetConsistencyProofResponse(checkpoint=checkpoint_to_proto(newest), hashes=hashes)
