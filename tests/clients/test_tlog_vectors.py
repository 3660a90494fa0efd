"""The client's readers of keys, checkpoints and proofs, held to what other people's libraries say of hostile input."""

import base64
import json
from pathlib import Path

import pytest

from leasehold import InvalidRequest
from leasehold.checkpoint import Checkpoint
from leasehold.merkle import consistent, root_from_inclusion
from leasehold.note import VerifierKey

VECTORS = Path(__file__).parent.parent / "vectors" / "tlog"
KEYS, NOTES, PROOFS = (
    [json.loads(line) for line in (VECTORS / f"{name}.jsonl").read_text().splitlines()]
    for name in ("keys", "notes", "proofs")
)
STRICTER_KEYS = {"its id in capitals"}
STRICTER_NOTES = {"a root whose last character has bits of nothing"}


def named(case):
    """Its words."""
    return case["what"]


@pytest.mark.parametrize("case", KEYS, ids=named)
def test_a_key_is_read_as_others_read_it(case):
    """Whatever the note tools refuse is refused; what is refused beyond that is listed."""
    try:
        taken = bool(VerifierKey.of_text(case["key"]))
    except InvalidRequest:
        taken = False
    assert taken == (case["x_mod"] and case["what"] not in STRICTER_KEYS)


@pytest.mark.parametrize("case", NOTES, ids=named)
def test_a_checkpoint_is_read_as_others_read_it(case):
    """The same notes are taken, with the same size and root, and the others are refused as such."""
    key = VerifierKey.of_text(KEYS[0]["key"])
    note = base64.b64decode(case["note"])
    if not case["torchwood"] or case["what"] in STRICTER_NOTES:
        with pytest.raises(InvalidRequest, match="checkpoint"):
            Checkpoint.of_note(note, key)
        return
    root = base64.b64decode(case["root"])
    assert Checkpoint.of_note(note, key) == Checkpoint("log.example/audit", case["size"], root)


def test_proofs_prove_what_others_say_they_prove():
    """As made, and bent in every way: longer, shorter, swapped, cut, of another size, place, leaf or root."""
    wrong = [case for case in PROOFS if _holds(case) != (case["holds"] and not _stricter(case))]
    assert not wrong
    assert sum(case["holds"] for case in PROOFS) > 50
    assert sum(not case["holds"] for case in PROOFS) > 400


def _holds(case):
    root, hashes = _bytes(case.get("root")), [_bytes(each) for each in case["hashes"]]
    if case["kind"] == "inclusion":
        found = root_from_inclusion(_bytes(case["leaf"]), case.get("index", 0), case["size"], hashes)
        return found is not None and found == root
    return consistent(case.get("old", 0), _bytes(case["old_root"]), case["size"], root, hashes)


def _stricter(case):
    """transparency-dev/merkle takes any root for that of an empty tree."""
    empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    return case["kind"] == "consistency" and not case.get("old") and case["old_root"] != empty


def _bytes(text):
    return base64.b64decode(text or "")
