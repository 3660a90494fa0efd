"""Whose share of what is bounded a peer has."""

import pytest

from leasehold_broker.domain.identity import Peer, Transport


@pytest.mark.parametrize(
    ("peer", "share"),
    [
        (Peer(7, connection="c", transport=Transport.UNIX), "uid:7"),
        (Peer(7, connection="c"), "tcp uid:7"),
        (Peer(7, "ab", connection="c"), "cert:ab"),
        (Peer(None, "ab", connection="c"), "cert:ab"),
        (Peer(None, connection="c"), "c"),
        (Peer(None, connection="d"), "d"),
    ],
)
def test_strangers_have_a_share_each_and_none_of_the_local_users(peer: Peer, share: str) -> None:
    """Over TCP, users have another share than on the socket; whoever is not known at all has that of a connection."""
    assert share == peer.share
