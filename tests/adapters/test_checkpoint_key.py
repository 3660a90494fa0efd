"""The key that signs checkpoints: made once, private, read by the notes of others, and refused when it is not ours."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from leasehold import InvalidRequest
from leasehold.checkpoint import Checkpoint
from leasehold.note import VerifierKey
from leasehold_broker.adapters.checkpoint_key import CheckpointKeyError, open_checkpoint_key
from leasehold_broker.adapters.private_files import NotPrivateError
from leasehold_broker.domain.checkpoint import TreeHead, checkpoint_text, head_of, verifier_key

ORIGIN = "log.example/audit"
HEAD = TreeHead(7, bytes(range(32)))

# The example of Go's golang.org/x/mod/sumdb/note, which C2SP's signed-note describes: a key, a text and its signature.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="


def test_key_and_signature_are_those_of_the_note_tools():
    """The published example of another implementation reads, and our key text of the same key is the same."""
    key = VerifierKey.of_text(GO_KEY)
    signature = base64.b64decode(GO_SIGNATURE)
    assert signature[:4] == key.id
    Ed25519PublicKey.from_public_bytes(key.public).verify(signature[4:], GO_TEXT)
    assert verifier_key("PeterNeumann", key.public) == GO_KEY
    note = GO_TEXT + b"\n\xe2\x80\x94 PeterNeumann " + GO_SIGNATURE.encode() + b"\n"
    # The signature holds; only then is it seen that the text is no checkpoint.
    with pytest.raises(InvalidRequest, match="is no checkpoint"):
        Checkpoint.of_note(note, key)
    with pytest.raises(InvalidRequest, match="signature does not hold"):
        Checkpoint.of_note(note.replace(b"your problem,", b"our problem,"), key)


def test_the_key_is_made_once_and_stays(tmp_path):
    """The second start signs with the same key; the file is its owner's alone."""
    first = open_checkpoint_key(tmp_path / "key", ORIGIN)
    again = open_checkpoint_key(tmp_path / "key", ORIGIN)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert first.verifier_key == again.verifier_key
    note = again.sign(checkpoint_text(ORIGIN, HEAD))
    assert Checkpoint.of_note(note, VerifierKey.of_text(first.verifier_key)) == Checkpoint(ORIGIN, 7, HEAD.root)
    assert head_of(note, ORIGIN) == HEAD


def test_the_private_half_is_in_no_words(tmp_path):
    """What may be logged holds the public half only."""
    key = open_checkpoint_key(tmp_path / "key", ORIGIN)
    secret = (tmp_path / "key").read_text().strip().split("+", 4)[4]  # itself base64, which may hold a "+"
    assert len(secret) == 44
    assert secret not in repr(key) + key.verifier_key


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no Ed25519 signing key"),
        ("PRIVATE+KEY+log.example/audit+00000000+AAAA\n", "holds no Ed25519 signing key"),
        ("PRIVATE+KEY+other+00000000+AQ" + "A" * 42 + "\n", "is the key of the log 'other'"),
        ("PRIVATE+KEY+log.example/audit+00000000+AQ" + "A" * 42 + "\n", "is damaged"),
    ],
)
def test_another_file_is_refused(tmp_path, content, said):
    """A file that is not this log's key is refused and left as it is: a new key would orphan the log."""
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(CheckpointKeyError, match=said):
        open_checkpoint_key(path, ORIGIN)
    assert path.read_text() == content


def test_a_key_that_others_can_read_is_refused(tmp_path):
    """Whoever read it could sign another history."""
    open_checkpoint_key(tmp_path / "key", ORIGIN)
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(NotPrivateError, match="chmod 600"):
        open_checkpoint_key(tmp_path / "key", ORIGIN)


def test_a_checkpoint_is_refused_under_another_key_or_when_altered(tmp_path):
    """Another log's key, another size, another root, or a key id alone: none of them passes."""
    ours = open_checkpoint_key(tmp_path / "ours", ORIGIN)
    other = open_checkpoint_key(tmp_path / "other", ORIGIN)
    key = VerifierKey.of_text(ours.verifier_key)
    note = ours.sign(checkpoint_text(ORIGIN, HEAD))
    for wrong, said in (
        (other.sign(checkpoint_text(ORIGIN, HEAD)), "is not signed by"),
        (note.replace(b"\n7\n", b"\n8\n"), "signature does not hold"),
        (note.replace(b"AAEC", b"AAED"), "signature does not hold"),
        (ours.sign(b"elsewhere\n7\n" + note.split(b"\n")[2] + b"\n"), "is of the log 'elsewhere'"),
        (ours.sign(f"{ORIGIN}\n07\n".encode() + note.split(b"\n")[2] + b"\n"), "no size"),
        (ours.sign(f"{ORIGIN}\n7\nAAAA\n".encode()), "no root"),
        (note[: note.index(b"\n\n")], "is no signed note"),
        (b"", "is no signed note"),
        (note + b"\xe2\x80\x94 log.example/audit !\n", "cannot be read"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            Checkpoint.of_note(wrong, key)


@pytest.mark.parametrize("text", ["", "a+b", "log+00000000+AQ==", GO_KEY.replace("c74f", "c74e"), GO_KEY[:-1]])
def test_a_mistyped_verifier_key_is_refused(text):
    """Its id is computed from the key: a slip does not become another key."""
    with pytest.raises(InvalidRequest, match="key"):
        VerifierKey.of_text(text)
