"""The body gate over JSONTestSuite; every deviation from its verdicts is listed with a reason."""

import json

import pytest
from tests.fakes.json_suite import as_member, cases

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.egress.body_gate import parse_object

NOT_AN_OBJECT = "is not a JSON object"
EQUAL_KEYS = "has an object with two equal keys"
DEVIATIONS = {
    "y_object_duplicated_key": EQUAL_KEYS,
    "y_object_duplicated_key_and_value": EQUAL_KEYS,
    "y_number_double_close_to_zero": "has a number of more than 64 characters",
}
"""Valid JSON that is refused, in whatever place: two parsers read it differently, or could."""
LEFT_TO_US_AND_TAKEN = {"i_number_double_huge_neg_exp", "i_number_real_underflow"}
"""They round to zero; what goes upstream is the zero."""


def refusal(body):
    """Why the gate refuses a body; None when it takes it."""
    try:
        parse_object(body)
    except Refusal as refused:
        reason, message = refused.reason, refused.message
    else:
        return None
    assert reason is Reason.BODY_INVALID
    return message


def test_the_collection_is_whole():
    """All cases are there."""
    assert [len(cases(verdict)) for verdict in "nyi"] == [188, 95, 35]


@pytest.mark.parametrize("verdict", ["n", "i"])
def test_nothing_that_must_be_rejected_is_taken(verdict):
    """No must-reject case is taken as a body, and none of those that are left to us."""
    assert [name for name, case in cases(verdict).items() if refusal(case) is None] == []


def test_nothing_that_must_be_rejected_is_taken_inside_an_object():
    """Nor is one taken as the value of a member."""
    assert [name for name, case in cases("n").items() if refusal(as_member(case)) is None] == []


def test_what_is_valid_is_taken_inside_an_object():
    """Every must-accept case is taken as the value of a member, with JSON's meaning, but for the list."""
    refused = {}
    for name, case in cases("y").items():
        why = refusal(as_member(case))
        if why is None:
            assert json.loads(case) == parse_object(as_member(case))["a"]
        else:
            refused[name] = why.removeprefix("the body ").partition(";")[0]
    assert refused == DEVIATIONS


def test_valid_bodies_are_objects():
    """As a whole body, a must-accept case is taken exactly when it is an object and not on the list."""
    for name, case in cases("y").items():
        taken = isinstance(json.loads(case), dict) and name not in DEVIATIONS
        assert taken == (refusal(case) is None), name
        if not taken and name not in DEVIATIONS:
            assert NOT_AN_OBJECT in refusal(case)


def test_what_is_left_to_us_is_decided():
    """Of the cases that are each parser's own choice, exactly the listed ones are taken inside an object."""
    assert {name for name, case in cases("i").items() if refusal(as_member(case)) is None} == LEFT_TO_US_AND_TAKEN
