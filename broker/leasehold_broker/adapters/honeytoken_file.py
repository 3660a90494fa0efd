"""The file with the digests of honeytokens. Owns its form and its strict reading; values never come here.

It is no secret, and decides who is cut off: nobody but its owner may write it.
"""

from pathlib import Path

import msgspec

from leasehold_broker.adapters.private_files import locked, replace_private
from leasehold_broker.adapters.watched_files import FilesRefusedError, read_guarded
from leasehold_broker.domain.honeytokens import HONEYTOKENS_MAX, NAME, NAME_RULE, Honeytoken, HoneytokenKind

FILE_BYTES_MAX = 4 * 1024 * 1024
VERSION = 1


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    kind: HoneytokenKind
    sha256: str
    create_wall_ms: int


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    honeytokens: list[_Row]


def read_honeytokens(path: str) -> tuple[Honeytoken, ...]:
    """All of the file.

    Raises:
        FilesRefusedError: it cannot be used; says why.
    """
    complaints: list[str] = []
    data = read_guarded(path, FILE_BYTES_MAX, complaints)
    if data is not None:
        try:
            rows = _checked(msgspec.json.decode(data, type=_File))
        except ValueError as error:
            complaints.append(f"{path}: {error}; make it with leasehold-broker honeytoken")
        else:
            return rows
    raise FilesRefusedError(complaints)


def add_honeytoken(path: Path, fresh: Honeytoken) -> None:
    """Add one, durably; makes the file where there is none.

    Raises:
        FilesRefusedError: the file cannot be used.
        ValueError: the name is taken, or there are too many.
        OSError: it cannot be written.
    """
    with locked(path):
        known = read_honeytokens(str(path)) if path.exists() else ()
        if any(one.name == fresh.name for one in known):
            message = f"a honeytoken named {fresh.name!r} exists; use another name, or remove it first"
            raise ValueError(message)
        _write(path, (*known, fresh))


def remove_honeytoken(path: Path, name: str) -> None:
    """Remove one, durably.

    Raises:
        FilesRefusedError: the file cannot be used.
        ValueError: there is none of that name.
        OSError: it cannot be written.
    """
    with locked(path):
        known = read_honeytokens(str(path))
        left = tuple(one for one in known if one.name != name)
        if len(left) == len(known):
            message = f"no honeytoken is named {name!r}; list shows what there is"
            raise ValueError(message)
        _write(path, left)


def _write(path: Path, honeytokens: tuple[Honeytoken, ...]) -> None:
    rows = [_Row(one.name, one.kind, one.sha256, one.create_wall_ms) for one in honeytokens]
    data = msgspec.json.encode(_File(VERSION, rows))
    _checked(_File(VERSION, rows))
    replace_private(path, msgspec.json.format(data, indent=1) + b"\n")


def _checked(file: _File) -> tuple[Honeytoken, ...]:
    """Raises ValueError."""
    if file.version != VERSION:
        message = f"version must be {VERSION}, was {file.version}"
        raise ValueError(message)
    if len(file.honeytokens) > HONEYTOKENS_MAX:
        message = f"holds {len(file.honeytokens)} honeytokens, more than {HONEYTOKENS_MAX}"
        raise ValueError(message)
    for row in file.honeytokens:
        if not NAME.fullmatch(row.name):
            message = f"name {row.name[:80]!r} {NAME_RULE}"
            raise ValueError(message)
        if len(row.sha256) != 64 or not set(row.sha256) <= set("0123456789abcdef"):
            message = f"honeytoken {row.name!r}: sha256 must be 64 lower-case hexadecimal digits"
            raise ValueError(message)
    names = [row.name for row in file.honeytokens]
    if len(set(names)) != len(names):
        raise ValueError("two honeytokens have one name")
    return tuple(Honeytoken(row.name, row.kind, row.sha256, row.create_wall_ms) for row in file.honeytokens)
