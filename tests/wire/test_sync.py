"""What a sidecar and the centre tell each other of what is applied, over the wire."""

import pytest

from leasehold.v1 import sidecar_service_pb2 as pb
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation_history import NOTHING
from leasehold_broker.domain.sync import Push, SyncMessage
from leasehold_broker.wire.sync import message_from_proto, message_to_proto, push_from_proto, push_to_proto

DIGEST = bytes(range(32))


def test_digests_and_snapshots_come_back_the_same():
    """With the epoch that they are of; of nothing the digest is nothing, from whichever build."""
    message = SyncMessage(None, 7, history=DIGEST, applied_budget_change=3, budget_history=DIGEST[::-1])
    assert message_from_proto(message_to_proto(message)) == message
    push = Push(7, (), 60.0, 1, 3, history=DIGEST, snapshot=True, budget_history=DIGEST[::-1], budget_snapshot=True)
    assert push_from_proto(push_to_proto(push)) == push
    assert message_from_proto(pb.SyncStateRequest()).history == NOTHING
    assert message_from_proto(pb.SyncStateRequest()).budget_history == NOTHING


def test_a_build_that_tells_no_digest_is_told_apart():
    """It is known by its number, as before; it never passes for one that has the digest of nothing."""
    assert message_from_proto(pb.SyncStateRequest(applied_epoch=7)).history is None
    answer = push_to_proto(Push(7, (), 60.0, 1))
    assert push_from_proto(answer).history is None
    assert message_from_proto(pb.SyncStateRequest(applied_budget_change=7)).budget_history is None
    assert push_from_proto(push_to_proto(Push(7, (), 60.0, 1, 3))).budget_history is None


@pytest.mark.parametrize("digest", [b"\0", DIGEST[:31], DIGEST + b"\0"])
def test_a_digest_of_another_length_is_refused(digest: bytes):
    """In both directions."""
    for read in (
        lambda: message_from_proto(pb.SyncStateRequest(applied_epoch=1, history=digest)),
        lambda: push_from_proto(push_to_proto(Push(1, (), 60.0, 1, history=digest))),
        lambda: message_from_proto(pb.SyncStateRequest(applied_budget_change=1, budget_history=digest)),
        lambda: push_from_proto(push_to_proto(Push(1, (), 60.0, 1, 1, budget_history=digest))),
    ):
        with pytest.raises(Refusal) as refused:
            read()
        assert refused.value.reason is Reason.FIELD_INVALID
