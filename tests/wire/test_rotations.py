"""What becomes of a key that is switched off: each word has a number, and each number a sentence for operators."""

import pytest

from leasehold.cli import revocation_answer
from leasehold.v1 import key_service_pb2 as pb
from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.wire.rotations import switch_off_to_proto


@pytest.mark.parametrize("how", SwitchOff)
def test_every_switch_off_is_told_and_says_whether_it_can_be_undone(how):
    """No two alike; what an older collector does not say has words of its own."""
    number = switch_off_to_proto(how)
    assert pb.SwitchOff.Name(number) == f"SWITCH_OFF_{how.name}"
    words = revocation_answer._SWITCHED_OFF
    assert set(words) == set(pb.SwitchOff.values()) - {pb.SWITCH_OFF_UNSPECIFIED}
    assert len({*words.values(), revocation_answer._ENDED}) == len(words) + 1
    assert ("cannot be undone" in words[number]) is (how in {SwitchOff.DELETED, SwitchOff.REPLACED})


def test_a_switch_off_that_is_not_known_is_none():
    """Of a rotation that replaces a key, or of an earlier build."""
    assert switch_off_to_proto(None) == pb.SWITCH_OFF_UNSPECIFIED
