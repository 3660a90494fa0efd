"""The socket that agents come to: its place and modes, who is already there, and what is left alone."""

import os
import socket
import stat
from pathlib import Path

import pytest

from leasehold_broker.adapters.public_socket import ListenError, PublicSocket, SocketPlace


@pytest.fixture
def place(tmp_path: Path) -> SocketPlace:
    """A place for a group."""
    return SocketPlace(tmp_path / "run" / "s", folder_mode=0o750, socket_mode=0o660, group=os.getgid())


def test_modes_are_what_was_asked_for_whatever_the_umask(place: SocketPlace) -> None:
    """Folder and socket get their modes explicitly, and nothing is left of the staging folder."""
    before = os.umask(0)
    try:
        public = PublicSocket(place)
        assert stat.S_IMODE(place.path.parent.stat().st_mode) == 0o750
        assert stat.S_IMODE(place.path.stat().st_mode) == 0o660
        assert sorted(path.name for path in place.path.parent.iterdir()) == ["s", "s.lock"]
        public.close()
    finally:
        os.umask(before)
    assert not place.path.exists()


def test_a_second_broker_is_refused_and_the_first_goes_on(place: SocketPlace) -> None:
    """The lock says that somebody listens; the second does not touch the first one's socket."""
    first = PublicSocket(place)
    with pytest.raises(ListenError, match="another broker listens here"):
        PublicSocket(place)
    assert not first.replaced()
    first.close()
    PublicSocket(place).close()


def test_what_a_crashed_broker_left_behind_is_replaced(place: SocketPlace) -> None:
    """A stale socket does not stop a new start."""
    place.path.parent.mkdir(mode=0o750)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(place.path))
    before = place.path.stat().st_ino
    public = PublicSocket(place)
    assert place.path.stat().st_ino != before
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(place.path))
    public.close()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(place: SocketPlace, mode: int) -> None:
    """Who can rename our socket can stand in for us."""
    place.path.parent.mkdir()
    place.path.parent.chmod(mode)
    with pytest.raises(ListenError, match="others than this broker can write there"):
        PublicSocket(place)


def test_a_link_to_a_folder_is_refused(place: SocketPlace, tmp_path: Path) -> None:
    """A link could be turned elsewhere later."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    place.path.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ListenError, match="not a folder"):
        PublicSocket(place)


def test_a_file_in_the_way_is_left_alone(place: SocketPlace) -> None:
    """Something that is not a socket is not ours to remove."""
    place.path.parent.mkdir(mode=0o750)
    place.path.write_text("precious")
    with pytest.raises(ListenError, match="not a socket"):
        PublicSocket(place)
    assert place.path.read_text() == "precious"


def test_a_path_that_is_too_long_is_refused_in_words(tmp_path: Path) -> None:
    """The limit of Unix socket paths is named, not met as an obscure error."""
    with pytest.raises(ListenError, match="too long for a Unix socket"):
        PublicSocket(SocketPlace(tmp_path / ("x" * 100) / "s"))
