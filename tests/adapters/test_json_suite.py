"""The strict reader of tokens and key sets over JSONTestSuite; every deviation from its verdicts is listed."""

import json

import pytest
from tests.fakes.issuer import b64
from tests.fakes.json_suite import as_member, cases

from leasehold_broker.adapters.jwt_gate import TOKEN_CHARACTERS_MAX, read_token
from leasehold_broker.adapters.strict_json import NotStrictJsonError, read_object
from leasehold_broker.domain.reasons import Reason, Refusal

DUPLICATE = "duplicate members"
DEVIATIONS = {"y_object_duplicated_key": DUPLICATE, "y_object_duplicated_key_and_value": DUPLICATE}
"""Valid JSON that is refused: readers differ in which of two equal members they keep."""
LEFT_TO_US_AND_TAKEN = {
    "i_number_double_huge_neg_exp",  # zero
    "i_number_real_underflow",  # zero
    "i_number_too_big_neg_int",  # an integer is kept exactly; no claim of this size is a time
    "i_number_too_big_pos_int",
    "i_number_very_big_negative_int",
}


def refusal(data):
    """Why the reader refuses; None when it reads."""
    try:
        read_object(data)
    except NotStrictJsonError as error:
        return str(error)
    return None


@pytest.mark.parametrize("verdict", ["n", "i"])
def test_nothing_that_must_be_rejected_is_read(verdict):
    """No must-reject case is read, and none of those that are left to us, because none is an object."""
    assert [name for name, case in cases(verdict).items() if refusal(case) is None] == []


def test_nothing_that_must_be_rejected_is_read_inside_an_object():
    """Nor is one read as the value of a member."""
    assert [name for name, case in cases("n").items() if refusal(as_member(case)) is None] == []


def test_what_is_valid_is_read_inside_an_object():
    """Every must-accept case is read as the value of a member, with JSON's meaning, but for the list."""
    refused = {}
    for name, case in cases("y").items():
        why = refusal(as_member(case))
        if why is None:
            assert json.loads(case) == read_object(as_member(case))["a"]
        else:
            refused[name] = why
    assert refused == DEVIATIONS


def test_what_is_left_to_us_is_decided():
    """Of the cases that are each parser's own choice, exactly the listed ones are read inside an object."""
    assert {name for name, case in cases("i").items() if refusal(as_member(case)) is None} == LEFT_TO_US_AND_TAKEN


def test_no_token_carries_a_case_that_must_be_rejected():
    """As header or as payload of a token, bare or inside an object, no must-reject case passes the token gate."""
    good = b64(b'{"alg":"RS256"}')
    seen = 0
    for case in cases("n").values():
        if len(case) > TOKEN_CHARACTERS_MAX:
            continue
        for segment in (b64(case), b64(as_member(case)), b64(b'{"alg":"RS256","kid":' + case + b"}")):
            for token in (f"{segment}.e30.AAAA", f"{good}.{segment}.AAAA"):
                with pytest.raises(Refusal) as refused:
                    read_token(token)
                assert refused.value.reason == Reason.JWT_MALFORMED
                seen += 1
    assert seen == 6 * 186
