"""A copy of what a sidecar remembers of its keys' past, for `keys audit`: the state is the running process's alone.

Holds names, versions and times; no secret. The state is the truth: the copy may be a minute behind.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from leasehold_broker.adapters.private_files import NotPrivateError, read_private, replace_private
from leasehold_broker.domain.keys import KeyMark

NAME = "key-marks.json"
BYTES_MAX = 16 * 1024 * 1024


def write_marks(directory: Path, marks: Iterable[KeyMark]) -> None:
    """Replace the copy. Raises OSError."""
    replace_private(directory / NAME, msgspec.json.encode(list(marks)))


def read_marks(directory: Path) -> list[KeyMark] | None:
    """The copy; None when there is none, or none that can be read."""
    try:
        return msgspec.json.decode(read_private(directory / NAME, BYTES_MAX), type=list[KeyMark])
    except (OSError, NotPrivateError, msgspec.MsgspecError):
        return None
