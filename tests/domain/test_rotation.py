"""The states of a rotation: what follows from what, at any outcome and at any time."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.domain.rotation import (
    OLD_SERVES,
    Purpose,
    Rotation,
    RotationLimits,
    RotationState,
    SwitchOff,
    Trigger,
)
from leasehold_broker.domain.rotation_transitions import (
    Done,
    Drained,
    Faulted,
    Identified,
    Minted,
    NeedsPerson,
    Probed,
    Promoted,
    Proven,
    Replaced,
    Stored,
    SwitchedOff,
    after,
)

LIMITS = RotationLimits()
WHY = st.sampled_from(["sealed", "busy"])
STATUS = st.sampled_from([0, 200, 401, 403, 429, 500])
FAULT = st.builds(Faulted, WHY, st.booleans())
S = RotationState
OUTCOMES = {
    S.PLANNED: st.builds(Identified, st.sampled_from(["", "old"])) | FAULT,
    S.MINTING: st.just(Minted("new")) | st.just(Stored()) | st.builds(NeedsPerson, WHY) | FAULT,
    S.AWAITING_KEY: st.just(Stored("new")) | FAULT,
    S.PROBING: st.builds(Probed, STATUS) | FAULT,
    S.PROMOTING: st.builds(Promoted, st.integers(1, 9)) | FAULT,
    S.DRAINING: st.builds(Drained, st.sampled_from([(), ("sidecar-1",)])) | FAULT,
    S.ENDING: st.just(Done()) | st.builds(Probed, st.sampled_from([401, 403])) | st.builds(NeedsPerson, WHY) | FAULT,
    S.VERIFYING: st.builds(Probed, STATUS) | FAULT,
    S.FORGETTING: st.just(Done()) | FAULT,
    S.ABANDONING: st.just(Done()) | st.just(Promoted(3)) | FAULT,
}
ROOT_OUTCOMES = {
    S.PLANNED: st.just(Identified("")) | FAULT,
    S.MINTING: st.just(Replaced()) | FAULT,
    S.PROBING: st.just(Proven()) | FAULT,
    S.ABANDONING: st.just(Done()) | st.builds(NeedsPerson, WHY),
}
AFTER_PROMOTION = {S.DRAINING, S.ENDING, S.VERIFYING, S.FORGETTING, S.DONE, S.FAILED}


def planned(trigger=Trigger.OPERATOR):
    """A rotation at its beginning."""
    return Rotation("0" * 32, "openai-prod", "prod", trigger, "dora", S.PLANNED, 1, 1)


def walk(rotation, *outcomes, elapsed=1.0, limits=LIMITS):
    """The rotation after these outcomes."""
    for outcome in outcomes:
        rotation = after(rotation, outcome, elapsed, limits, 2)
    return rotation


TO_PROBING = (Identified("old"), Minted("new"), Stored())
TO_DRAINING = (*TO_PROBING, Probed(200), Promoted(4))
TO_VERIFYING = (*TO_DRAINING, Drained(("s",)), Drained(), Done())


@given(st.data(), st.sampled_from(list(Trigger)))
def test_an_engines_own_credential_is_done_only_when_it_is_proven(data, trigger):
    """Nothing is promoted, drained or ended; whatever fails ends as failed, with its reason."""
    rotation, proven = planned(trigger), False
    for step in range(2, 60):
        if rotation.over:
            break
        outcome = data.draw(ROOT_OUTCOMES[rotation.state])
        rotation = after(rotation, outcome, data.draw(st.sampled_from([0.0, 1e7])), LIMITS, step)
        proven = proven or isinstance(outcome, Proven)
        assert (rotation.state is S.DONE) is proven
        assert rotation.why or rotation.state is not S.FAILED


@given(st.data(), st.sampled_from(list(Trigger)))
def test_whatever_happens_one_key_is_never_ended_before_the_other_serves(data, trigger):
    """The old key is ended only after promotion; what was promoted is never given up; a new state has a new time."""
    rotation, promoted = planned(trigger), False
    for step in range(2, 60):
        if rotation.over:
            break
        outcome = data.draw(OUTCOMES[rotation.state])
        before = rotation
        rotation = after(rotation, outcome, data.draw(st.sampled_from([0.0, 50.0, 1e7])), LIMITS, step)
        promoted = promoted or isinstance(outcome, Promoted)
        assert promoted is (rotation.version > 0)
        assert (rotation.state in AFTER_PROMOTION) if promoted else (rotation.state not in AFTER_PROMOTION - {S.FAILED})
        assert (rotation.state_wall_ms == step) is (rotation.state is not before.state)
        assert rotation.why or rotation.state is not S.FAILED


@given(st.data())
def test_every_wait_ends(data):
    """When everything takes too long and fails, a rotation is over after a bounded number of steps."""
    rotation = planned()
    for _ in range(20):
        if rotation.over:
            return
        fault = Faulted("nothing works")
        outcome = data.draw(st.sampled_from([fault, Probed(500)]) if rotation.state is S.VERIFYING else st.just(fault))
        rotation = walk(rotation, outcome, elapsed=1e7)
    pytest.fail("it goes on for ever")


@pytest.mark.parametrize("state", list(S))
def test_an_outcome_of_another_state_is_an_error(state):
    """No state takes an outcome that its step cannot have; what is over takes none."""
    rotation = replace(planned(), state=state)
    foreign = Promoted(1) if state in {S.DONE, S.FAILED, S.PLANNED, S.VERIFYING} else Identified("x")
    with pytest.raises(ValueError, match=state.value):
        walk(rotation, foreign)


def test_the_whole_way():
    """Mint, store, probe, promote, drain, end, three refusals of the old key, forget: done, with both ids."""
    rotation = walk(planned(), *TO_DRAINING, Drained(), elapsed=LIMITS.drain_min)
    rotation = walk(rotation, Done(), Probed(401), Probed(401), Probed(401), Done())
    assert (rotation.state, rotation.why) == (S.DONE, "")
    assert (rotation.old_key_id, rotation.new_key_id, rotation.version) == ("old", "new", 4)


def test_what_was_done_to_a_key_that_is_switched_off_is_kept():
    """Planned as one thing and done as another (the configuration was changed meanwhile): what was done is told."""
    wanted = replace(planned(), purpose=Purpose.DISABLE, switch_off=SwitchOff.DELETED)
    rotation = walk(wanted, Identified("old", 3), SwitchedOff(SwitchOff.INACTIVE))
    assert (rotation.state, rotation.switch_off, rotation.version) == (S.VERIFYING, SwitchOff.INACTIVE, 3)
    with pytest.raises(ValueError, match="ending"):
        walk(wanted, Identified("old", 3), Done())
    with pytest.raises(ValueError, match="ending"):
        walk(replace(wanted, purpose=Purpose.REPLACE, state=S.ENDING), SwitchedOff(SwitchOff.INACTIVE))


def test_one_refusal_is_not_steady():
    """A key that is taken again between two refusals is not dead: the count begins anew. No answer says nothing."""
    rotation = walk(replace(planned(), state=S.VERIFYING), Probed(401), Probed(0), Probed(401), Probed(200))
    assert (rotation.state, rotation.confirmations) == (S.VERIFYING, 0)
    assert walk(rotation, Probed(403), Probed(401), Probed(401)).state is S.FORGETTING


def test_a_new_key_that_the_provider_never_takes_is_given_up():
    """Refused, unanswered or rate-limited until the time is over: abandoned, and the old key serves on."""
    probing = walk(planned(), *TO_PROBING)
    for status in (0, 401, 429, 500):
        assert walk(probing, Probed(status)).state is S.PROBING
        given_up = walk(probing, Probed(status), elapsed=LIMITS.probe + 1)
        assert given_up.state is S.ABANDONING
        assert walk(given_up, Done()).state is S.FAILED


def test_a_promotion_that_succeeded_unheard_is_not_undone():
    """When giving up finds the new value promoted, the rotation goes on forwards."""
    rotation = walk(planned(), *TO_PROBING, Probed(200), Faulted("permission removed", final=True))
    assert rotation.state is S.ABANDONING
    assert walk(rotation, Promoted(7)).state is S.DRAINING


def test_a_drain_waits_for_its_least_time_and_for_every_user_up_to_its_most():
    """Nobody seen is not enough at once; a user holds it up to the limit, which is short in an incident."""
    draining = walk(planned(), *TO_DRAINING)
    assert walk(draining, Drained(), elapsed=0).state is S.DRAINING
    assert walk(draining, Drained(), elapsed=LIMITS.drain_min).state is S.ENDING
    waiting = walk(draining, Drained(("sidecar-1",)), elapsed=LIMITS.drain)
    assert (waiting.state, waiting.why) == (S.DRAINING, "still used by sidecar-1")
    cut = walk(draining, Drained(("sidecar-1",)), elapsed=LIMITS.drain + 1)
    assert (cut.state, cut.why) == (S.ENDING, "not drained within 3600 s: still used by sidecar-1")
    incident = walk(planned(Trigger.INCIDENT), *TO_DRAINING)
    assert walk(incident, Drained(), elapsed=0).state is S.ENDING
    assert walk(incident, Drained(("sidecar-1",)), elapsed=LIMITS.drain_incident + 1).state is S.ENDING


def test_an_old_key_that_lives_on_is_a_failure_that_says_so():
    """By hand, refused or taken still at the end of the time: the new key serves, the rotation has failed."""
    for outcome in (NeedsPerson("end it in the console"), Faulted("denied", final=True)):
        rotation = walk(replace(planned(), state=S.ENDING, version=3), outcome)
        assert (rotation.state, rotation.by_hand) == (S.VERIFYING, True)
        assert walk(rotation, Probed(200), elapsed=LIMITS.verify + 1).state is S.VERIFYING
        left = walk(rotation, Probed(200), elapsed=LIMITS.by_hand + 1)
        assert walk(left, Done()).state is S.FAILED
        assert "not seen dead" in walk(left, Done()).why
        assert walk(rotation, Probed(401), Probed(401), Probed(401), Done()).state is S.DONE


def test_without_a_harmless_call_nothing_is_probed():
    """Where the configuration says that there is none, the two probing states are passed without."""
    unprobed = replace(LIMITS, probed=False)
    rotation = walk(replace(planned(), state=S.PROBING), Done(), limits=unprobed)
    assert rotation.state is S.PROMOTING
    assert walk(replace(rotation, state=S.VERIFYING), Done(), limits=unprobed).state is S.FORGETTING
    with pytest.raises(ValueError, match="probing"):
        walk(replace(rotation, state=S.PROBING), Done())


def test_a_word_of_a_provider_that_holds_a_key_is_not_kept():
    """What looks like a secret in a fault's sentence never reaches the rotation, its event or an operator."""
    rotation = walk(planned(), Faulted("invalid key sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH"))
    assert "abcdefgh" not in rotation.why


def test_the_old_serves_until_promotion():
    """A wish for a new key joins a rotation that has not promoted yet, and no other."""
    assert S.PROMOTING in OLD_SERVES
    assert not OLD_SERVES & (AFTER_PROMOTION | {S.ABANDONING})
