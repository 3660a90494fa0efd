"""Witnesses of the log: the policy that names them, what they are asked, and what their cosignatures are worth."""

import socket

import pytest
from click.testing import CliRunner
from tests.fakes.log_copy import SignedLog, interleaved
from tests.fakes.witness import SECONDS, FakeWitness, serving

from leasehold import InvalidRequest
from leasehold import witnessing as witnessing_module
from leasehold.cli.app import leasehold
from leasehold.merkle import EMPTY_ROOT, leaf_hash
from leasehold.note import SignedNote
from leasehold.witnesses import WitnessPolicy
from leasehold.witnessing import ATTEMPTS_MAX, have_witnessed
from leasehold_broker.domain.merkle import consistency_proof, fold

LONG = interleaved(60)
WHOLE = LONG[:20]


@pytest.fixture
def log(tmp_path):
    """A log with a key."""
    return SignedLog(tmp_path)


@pytest.fixture
def three(log):
    """Three witnesses of it, served."""
    witnesses = [FakeWitness(f"witness.example/{name}", log.key) for name in "abc"]
    with serving(*witnesses):
        yield witnesses


def policy_text(log, witnesses, rest="group both 2 a b\nquorum both\n"):
    """A policy with these under one letter each."""
    lines = [f"log {log.key_text}\n"]
    lines += [f"witness {letter} {one.key_text} {one.url}\n" for letter, one in zip("abc", witnesses, strict=False)]
    return "".join(lines) + rest


def proving(log, records):
    """What a collector with these records proves."""
    leaves = [leaf_hash(record.entry()) for record in records]

    def node(level, index):
        return _subtree(leaves[index << level : (index + 1) << level])

    def prove(old):
        return log.note(records), consistency_proof(old, len(records), node)

    return prove


def _subtree(leaves):
    while len(leaves) > 1:
        leaves = [fold(leaves[at : at + 2]) for at in range(0, len(leaves), 2)]
    return leaves[0]


def test_witnesses_cosign_what_has_grown(log, three):
    """Each is asked from where it stands, all about one checkpoint; their lines are appended and hold."""
    policy = WitnessPolicy.of_text(policy_text(log, three))
    for size in (3, 3, 7, 8, 20):
        kept = three[0].size
        found = have_witnessed(policy, proving(log, WHOLE[:size]), kept, kept)
        assert (found.cosigners, found.failed, found.contradicted) == (["a", "b", "c"], {}, False)
        cosigners = policy.cosigners(SignedNote.of_bytes(found.note, "note"))
        assert cosigners == {"a": SECONDS, "b": SECONDS, "c": SECONDS}
        assert policy.satisfied(cosigners)
        assert found.note.startswith(log.note(WHOLE[:size]))
    three[1].size, three[1].root = 0, EMPTY_ROOT  # it lost what it knew
    assert have_witnessed(policy, proving(log, WHOLE), 20, 20).cosigners == ["a", "b", "c"]


def test_another_history_is_told_by_whoever_saw_the_first(log, three):
    """A rewritten log is not proven from what the witness saw, a cut one is shorter: both are told as that."""
    policy = WitnessPolicy.of_text(policy_text(log, three))
    have_witnessed(policy, proving(log, WHOLE[:8]), 0, 0)
    forked = have_witnessed(policy, proving(log, interleaved(12, subject="other")), 8, 8)
    assert (forked.contradicted, forked.cosigners) == (True, [])
    assert forked.failed["a"] == (
        "it has seen other events among the first 8: this log of 12 was cut, forked or rewritten"
    )
    cut = have_witnessed(policy, proving(log, WHOLE[:5]), 5, 5)
    assert (cut.contradicted, cut.failed["b"]) == (
        True,
        "it has seen 8 events: this log of 5 was cut, forked or rewritten",
    )


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, b""), "its answer is no signed note"),
        ((200, b"\xff\n"), "its answer is no signed note: it is not UTF-8"),
        ((200, b"anything\n"), "its answer has a signature line that cannot be read"),
        ((200, "\u2014 witness.example/b AAAAAAAAAAAAAAAAAAAA\n".encode()), "no cosignature of its key"),
        ((200, b"x" * 20_000), "its answer is longer than any that a witness gives"),
        ((302, b""), "it answered 302"),
        ((403, b"\x1b[2J"), "it answered 403"),
        ((404, b""), "it answered 404"),
        ((500, b""), "it answered 500"),
        ((409, b""), "does not say which"),
        ((409, b"-1\n"), "does not say which"),
        ((409, b"9" * 5000), "does not say which"),
        ((409, b"9223372036854775807\n"), "this log of 8 was cut"),
        ((409, b"5\n"), "it answered 409"),
    ],
)
def test_an_answer_that_is_none_costs_one_witness(log, three, answer, why):
    """Whatever one of them answers, the others are heard, and nothing of it is kept or shown."""
    policy = WitnessPolicy.of_text(policy_text(log, three))
    have_witnessed(policy, proving(log, WHOLE[:5]), 0, 0)
    three[0].answers = [answer] * ATTEMPTS_MAX
    found = have_witnessed(policy, proving(log, WHOLE[:8]), 5, 5)
    assert (found.cosigners, set(found.failed)) == (["b", "c"], {"a"})
    assert why in found.failed["a"]
    assert found.failed["a"].isprintable()
    cosigners = policy.cosigners(SignedNote.of_bytes(found.note, "note"))
    assert (set(cosigners), policy.satisfied(cosigners)) == ({"b", "c"}, False)


def test_a_cosignature_of_another_text_is_none(log, three):
    """The witness's own key over anything else: not taken from it, and refused where it stands in a note."""
    policy = WitnessPolicy.of_text(policy_text(log, three))
    line = three[0].line(b"another text\n")
    three[0].answers = [(200, line)]
    found = have_witnessed(policy, proving(log, WHOLE[:8]), 0, 0)
    assert "its cosignature does not hold" in found.failed["a"]
    with pytest.raises(InvalidRequest, match="its cosignature does not hold"):
        policy.cosigners(SignedNote.of_bytes(log.note(WHOLE) + line, "note"))


def test_a_witness_that_is_not_there_is_named(log, three, monkeypatch):
    """A closed port, a name that is none, and one that never ends its answer: each ends by itself."""
    monkeypatch.setattr(witnessing_module, "ANSWER_SECONDS_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        three[0].url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        three[1].url = "http://witness.example"
        three[2].url = "https://user@witness.example/"
        policy = WitnessPolicy.of_text(policy_text(log, three))
        found = have_witnessed(policy, proving(log, WHOLE), 0, 0)
    assert found.failed["a"].startswith("it cannot be asked: ")
    assert found.failed["b"] == found.failed["c"] == "its URL is neither https nor on this machine"
    assert found.note == log.note(WHOLE)


def test_a_log_that_is_signed_anew_meanwhile_is_asked_about_anew(log, three):
    """All witnesses see one checkpoint: where the proofs are of several, they are fetched again, and not for ever."""
    policy = WitnessPolicy.of_text(policy_text(log, three))
    have_witnessed(policy, proving(log, WHOLE[:5]), 0, 0)
    three[1].size, three[1].root = 0, EMPTY_ROOT
    sizes = iter(
        [8, 8, 8, 9, 10, 10, 10]
    )  # all ask from 5; the second from 0: three proofs, of two checkpoints, of one

    def prove(old):
        return proving(log, LONG[: next(sizes)])(old)

    assert have_witnessed(policy, prove, 5, 5).cosigners == ["a", "b", "c"]
    three[1].size, three[1].root = 0, EMPTY_ROOT
    sizes = iter(range(11, 61))
    with pytest.raises(InvalidRequest, match=f"each of {ATTEMPTS_MAX} times"):
        have_witnessed(policy, prove, 10, 10)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "exactly one log and one quorum"),
        ("log {log}\n", "exactly one log and one quorum"),
        ("log {log}\nlog {log}\nquorum none\n", "exactly one log"),
        ("log {log}\nquorum none\nquorum none\n", "one quorum"),
        ("log nonsense\nquorum none\n", "line 1 of the policy has a key that is no verifier key"),
        ("log {a}\nquorum none\n", "not an Ed25519 key of a signed note"),
        (
            "log {log}\nwitness a {log}\nquorum a\n",
            "line 2 of the policy has a key that is not an Ed25519 key of a witness",
        ),
        ("log {log}\nwitness a {a} http://x y\nquorum a\n", "line 2 of the policy is neither"),
        (
            "log {log}\nwitness a {a}\nwitness a {a}\nquorum a\n",
            "line 3 of the policy names 'a', and that name is taken",
        ),
        ("log {log}\nwitness none {a}\nquorum none\n", "that name is taken"),
        ("log {log}\nquorum b\n", "names 'b', and no line above it does"),
        ("log {log}\ngroup g 1 h\nquorum g\n", "names 'h', and no line above it does"),
        ("log {log}\nwitness a {a}\ngroup g 2 a\nquorum g\n", "asks for '2' of 1"),
        ("log {log}\nwitness a {a}\ngroup g 0 a\nquorum g\n", "asks for '0' of 1"),
        ("log {log}\nwitness a {a}\ngroup g \u0661 a\nquorum g\n", "of 1"),
        ("log {log}\nwitness a {a}\ngroup g 1\nquorum g\n", "line 3 of the policy is neither"),
        ("lag {log}\n", "line 1 of the policy is neither log, witness, group nor quorum"),
        ("\n" * 2000, "more than 1000 lines"),
    ],
)
def test_a_policy_that_is_none_is_refused_by_line(log, three, text, said):
    """A policy that was mistyped asks for less than was meant: nothing of it is taken."""
    with pytest.raises(InvalidRequest, match=said):
        WitnessPolicy.of_text(text.format(log=log.key_text, a=three[0].key_text))


def test_groups_count_their_members(log, three):
    """Any, all and so many, of witnesses and of groups."""
    rest = "group pair all a b # both\ngroup either any pair c\ngroup two 2 a b c\n\tquorum either\n"
    policy = WitnessPolicy.of_text(policy_text(log, three, rest))
    assert [policy.satisfied(set(some)) for some in ("", "a", "b", "ab", "c", "abc")] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]
    two = WitnessPolicy.of_text(policy_text(log, three, rest.replace("quorum either", "quorum two")))
    assert [two.satisfied(set(some)) for some in ("", "a", "ab", "bc", "abc")] == [False, False, True, True, True]
    assert WitnessPolicy.of_text(policy_text(log, three, "quorum none")).satisfied(())


def test_a_copy_is_held_against_the_policy(log, three, tmp_path):
    """Offline: the newest checkpoint with a quorum is told, and what came after it; without one it does not hold."""
    (tmp_path / "policy").write_text(policy_text(log, three))
    policy = WitnessPolicy.of_text((tmp_path / "policy").read_text())
    kept = tmp_path / "kept"
    kept.write_bytes(have_witnessed(policy, proving(log, WHOLE[:8]), 0, 0).note)
    folder = log.copy(WHOLE)

    def run(*arguments):
        return CliRunner().invoke(
            leasehold, ["audit", "verify", *map(str, (folder, "--policy", tmp_path / "policy", *arguments))]
        )

    alone = run()
    assert (alone.exit_code, "no checkpoint has the cosignatures of the policy's quorum" in alone.stderr) == (4, True)
    good = run("--checkpoint", kept)
    assert (good.exit_code, good.stderr) == (0, "")
    assert "witnessed: the checkpoint of 8 events, by a, b, c; 12 events after it are not" in good.stdout
    log.copy(WHOLE, note=have_witnessed(policy, proving(log, WHOLE), 8, 8).note)
    assert "witnessed: the checkpoint of 20 events, by a, b, c\n" in run().stdout
    log.copy(interleaved(20, subject="rewritten"))
    assert run("--checkpoint", kept).exit_code == 4
    assert run("--key", SignedLog(_made(tmp_path / "other")).key_text).exit_code == 2


def _made(folder):
    folder.mkdir()
    return folder
