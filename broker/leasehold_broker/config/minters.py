"""The tables that say where a key is made and ended. Owns their TOML shape and what is refused.

`minter` says which; an admin key is named, never written here: it is read from the key store.
"""

from pathlib import Path

import msgspec

from leasehold_broker.config.federation import wrong_origin
from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import absolute

EXEC_SECONDS_MAX = 600.0


class OpenAIMinter(Part, frozen=True, tag_field="minter", tag="openai"):
    """Service accounts of one project at OpenAI."""

    admin_key: str
    project: str
    scopes: tuple[str, ...] = ()
    origin: str = ""


class ExecMinter(Part, frozen=True, tag_field="minter", tag="exec"):
    """A program of the operator's."""

    program: str
    arguments: tuple[str, ...] = ()
    admin_key: str = ""
    seconds_max: float = 60.0


Minter = OpenAIMinter | ExecMinter


def minter_at(minter: Minter, base: Path) -> Minter:
    """With absolute paths."""
    if isinstance(minter, ExecMinter):
        return msgspec.structs.replace(minter, program=str(absolute(minter.program, base)))
    return minter


def wrong_minter(minter: Minter) -> list[str]:
    """What is wrong with one table."""
    wrong = [what for name in ("origin",) if (url := getattr(minter, name, "")) for what in wrong_origin(url)]
    wrong += [f"{name} is empty" for name in _required(minter) if not getattr(minter, name)]
    match minter:
        case ExecMinter(seconds_max=seconds) if not 1 <= seconds <= EXEC_SECONDS_MAX:
            wrong.append(f"seconds_max must be 1 to {EXEC_SECONDS_MAX:g}, was {seconds:g}")
        case OpenAIMinter() | ExecMinter():
            pass
    return wrong


def _required(minter: Minter) -> list[str]:
    return [field.name for field in msgspec.structs.fields(minter) if field.required]
