"""Reading a configuration file safely. Owns the checks that every file gets; knows no setting.

A configuration names files with secrets and decides who is believed: it must not be writable by others, and files that
hold secrets must not be readable by them.
"""

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from leasehold_broker.domain.toml_faults import toml_fault

CONFIG_BYTES_MAX = 1024 * 1024

T = TypeVar("T")


class ConfigError(Exception):
    """The configuration cannot be used: the message says which file, which setting, and what to change."""


def read_config(path: Path, shape: type[T]) -> T:
    """The file as settings.

    Args:
        path: a TOML file.
        shape: a msgspec struct that forbids unknown fields.

    Raises:
        ConfigError: unreadable, open to others, not TOML, duplicate or unknown keys, wrong types.
    """
    refuse_open_file(path, PRIVATE, "configuration")
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise ConfigError(message) from None
    if len(data) > CONFIG_BYTES_MAX:
        message = f"{path}: is larger than {CONFIG_BYTES_MAX} bytes"
        raise ConfigError(message)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        message = f"{path}: is not UTF-8; save it as UTF-8"
        raise ConfigError(message) from None
    try:
        return msgspec.convert(tomllib.loads(text), shape, strict=True)
    except tomllib.TOMLDecodeError as error:
        message = f"{path}: {toml_fault(text, str(error))}"
        raise ConfigError(message) from None
    except msgspec.ValidationError as error:
        message = f"{path}: {_in_words(str(error))}"
        raise ConfigError(message) from None


_PLACE = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_TYPES = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "null": "nothing",
    "object": "a table",
    "str": "text",
}


def _in_words(fault: str) -> str:
    """The validator's sentence, in the words of who wrote the file."""
    placed = _PLACE.fullmatch(fault)
    text, place = (placed[1], f" in `{placed[2]}`") if placed else (fault, "")
    missing = _MISSING.fullmatch(text)
    if missing is not None:
        return f"key `{missing[1]}` is missing{place}; add it (deploy/config explains every line)"
    if text.startswith("Expected `"):
        text = re.sub(r"`([a-z| ]+)`", lambda kinds: " or ".join(map(_type, kinds[1].split(" | "))), text)
    return text.replace("Object contains unknown field", "unknown key") + place


def _type(name: str) -> str:
    return _TYPES.get(name, name)


SECRET, PRIVATE, PUBLIC = 0o077, 0o027, 0o022
"""Permission bits that a file must not have: no access but the owner's; no reading by others; no writing by others."""
GIVEN = 0o037
"""The same for a secret of root's that a process of another user reads by its group: so Kubernetes mounts one."""


def refuse_open_file(path: Path, forbidden: int, what: str) -> None:
    """Refuse a file that is open to others.

    Args:
        path: a regular file of root's or our own.
        forbidden: SECRET, PRIVATE or PUBLIC.
        what: for the message.

    Raises:
        ConfigError: missing, not a regular file, or open to others; says which command mends it.
    """
    try:
        found = path.stat()
    except OSError as error:
        message = f"{what} file {path}: {error.strerror}; correct the path, or make the file"
        raise ConfigError(message) from None
    if not stat.S_ISREG(found.st_mode):
        message = f"{what} file {path}: is not a regular file"
        raise ConfigError(message)
    if found.st_uid not in {0, os.geteuid()}:
        message = f"{what} file {path}: belongs to uid {found.st_uid}; it must belong to root or to uid {os.geteuid()}"
        raise ConfigError(message)
    if forbidden == SECRET and found.st_uid == 0 != os.geteuid():
        forbidden = GIVEN
    if found.st_mode & forbidden:
        mode = {SECRET: "600", GIVEN: "440", PRIVATE: "640", PUBLIC: "644"}[forbidden]
        message = f"{what} file {path}: is open to others (mode {found.st_mode & 0o777:o}); run: chmod {mode} {path}"
        raise ConfigError(message)


def absolute(path: str, base: Path) -> Path:
    """`path`, relative paths taken from the configuration file's own folder."""
    return base / path
