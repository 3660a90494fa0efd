"""One digest for what numbered revocations say."""

from dataclasses import replace

import pytest

from leasehold_broker.domain.revocation import (
    ByEnvironment,
    ByKey,
    ByLabel,
    ByLease,
    ByProvider,
    BySidecar,
    BySubject,
    Cause,
    Everything,
    Order,
    Revocation,
)
from leasehold_broker.domain.revocation_history import NOTHING, RevocationHistory
from leasehold_broker.domain.sync import Matching, Push
from leasehold_broker.wire.revocations import revocation_from_proto, revocation_to_proto

FIRST = Revocation(1, BySubject("issuer", "agent"), "note", "alice", 1_700_000_000_123, Order(Cause.DRILL))
OTHERS = [
    replace(FIRST, selector=selector)
    for selector in (
        ByLease("leases/1"),
        BySubject("", "agent"),
        BySubject("issuer", "agent*"),
        ByKey("agent"),
        ByProvider("agent"),
        ByEnvironment("agent"),
        ByLabel("agent", "issuer"),
        BySidecar("agent"),
        Everything(),
    )
] + [
    replace(FIRST, note="other"),
    replace(FIRST, revoked_by="bob"),
    replace(FIRST, create_wall_ms=1_700_000_000_124),
    replace(FIRST, order=Order()),
    replace(FIRST, order=Order(Cause.DRILL, block_new=True)),
    replace(FIRST, order=Order(Cause.DRILL, block_new=True, block_seconds=60)),
    replace(FIRST, order=Order(Cause.DRILL, lifts=1)),
]


def test_whatever_differs_in_an_entry_makes_another_digest():
    """Two histories of one length and digest say the same, member for member."""
    digests = {RevocationHistory([entry]).digest_at(1) for entry in [FIRST, *OTHERS]}
    assert len(digests) == 1 + len(OTHERS)


def test_an_entry_that_went_over_the_wire_has_the_same_digest():
    """Both sides hash what they hold: nothing of an entry may be lost or changed between them."""
    for entry in [FIRST, *OTHERS]:
        came = revocation_from_proto(revocation_to_proto(entry))
        assert RevocationHistory([came]).digest_at(1) == RevocationHistory([entry]).digest_at(1)


def test_a_digest_covers_all_before_it():
    """The same last entry behind another one is another history; a cut one is that of the entries left."""
    second = replace(FIRST, epoch=2)
    history = RevocationHistory([FIRST, second])
    other = RevocationHistory([OTHERS[0], second])
    assert history.digest_at(2) != other.digest_at(2)
    assert history.begins_with(1, RevocationHistory([FIRST]).digest_at(1))
    assert not history.begins_with(1, other.digest_at(1))
    assert not history.begins_with(3, history.digest_at(2))
    assert not history.begins_with(-1, NOTHING)
    assert history.begins_with(0, NOTHING)
    history.cut(1)
    assert len(history) == 1
    history.extend([second])
    assert history.digest_at(2) == RevocationHistory([FIRST, second]).digest_at(2)


def test_a_gap_is_never_hashed():
    """What does not follow is refused, and so is the digest of what is not there (R5)."""
    history = RevocationHistory([FIRST])
    for epoch in (1, 3):
        with pytest.raises(ValueError, match="was due"):
            history.extend([replace(FIRST, epoch=epoch)])
    with pytest.raises(ValueError, match="not 2"):
        history.digest_at(2)


def entries(*notes: str) -> list[Revocation]:
    """Entries from 1 on, told apart by their notes."""
    return [Revocation(number, Everything(), note, "alice", 1) for number, note in enumerate(notes, start=1)]


@pytest.mark.parametrize(
    ("here", "centre", "agreed"),
    [
        ("abc", "ab", 2),
        ("abc", "abx", 2),
        ("abc", "xbc", 0),
        ("abc", "axc", 1),
        ("abc", "", 0),
        ("abc", "abcd", 3),
        ("", "abc", 0),
        ("abcdef", "abcxyzuvw", 3),
    ],
)
@pytest.mark.parametrize("page", [1, 2, 10])
def test_a_snapshot_is_compared_until_it_differs(here: str, centre: str, agreed: int, page: int):
    """However it is cut into pushes, the last number that means the same is found, and only at its end."""
    mine, theirs, matching = entries(*here), entries(*centre), Matching()
    found = None
    for start in range(0, max(1, len(theirs)), page):
        assert found is None
        push = Push(len(theirs), tuple(theirs[start : start + page]), 60.0, 0, snapshot=True)
        found = matching.agreed(push, lambda epoch: mine[epoch - 1] if epoch <= len(mine) else None)
        if found is not None:
            break
    assert found == agreed


def test_a_gap_in_a_snapshot_is_never_compared():
    """An entry that does not follow says that something was lost (R5)."""
    with pytest.raises(ValueError, match="was due in a snapshot"):
        Matching().agreed(Push(3, tuple(entries("a", "b", "c")[1:]), 60.0, 0), lambda _: None)
