"""The modes that a door's public socket gets."""

import os
import stat

import pytest

from leasehold_broker.wiring.public_sockets import public_socket


@pytest.mark.parametrize(("group", "folder_mode", "socket_mode"), [(None, 0o700, 0o600), (os.getgid(), 0o750, 0o660)])
async def test_a_door_is_open_to_its_group_and_nobody_else(tmp_path, group, folder_mode, socket_mode):
    """Without a group the owner alone may enter; with one, its members may too."""
    path = tmp_path / "run" / "door.sock"
    public = await public_socket(path, group)

    assert folder_mode == stat.S_IMODE(path.parent.stat().st_mode)
    assert socket_mode == stat.S_IMODE(path.stat().st_mode)
    assert (os.geteuid(), os.getgid()) == (path.stat().st_uid, path.stat().st_gid)
    public.close()
