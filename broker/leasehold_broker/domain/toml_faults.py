"""What is wrong with a TOML text that a person wrote, in words. Owns naming what is stated twice; knows no setting.

It stands here because configuration, policy and prices are read by rooms that may not know each other. Of the text it
shows names only, never a value: somebody may have pasted a secret.
"""

import re

_TWICE = (
    "Cannot overwrite a value",
    "Cannot declare",
    "Cannot redefine",
    "Cannot mutate",
    "Duplicate inline table key",
)
_AT = re.compile(r"\(at line ([0-9]+), column [0-9]+\)")
_NAME = re.compile(r"""\s*([A-Za-z0-9_.\-"' ]{1,128}?)\s*=""", re.ASCII)
_HEADER = re.compile(r"\s*(\[{1,2}[^\[\]#]{1,128}\]{1,2})")


def toml_fault(text: str, fault: str) -> str:
    """The sentence about a text that is no TOML, without its file's name.

    Args:
        text: the whole text.
        fault: what the parser said; it names a place, but not what is stated twice there.
    """
    if not fault.startswith(_TWICE):
        return f"is not valid TOML: {fault}"
    lines = text.splitlines() or [""]
    at = _AT.search(fault)
    number = min(int(at[1]) if at else len(lines), len(lines))
    name, header = _stated(lines[:number])
    where = f"`{name}` in {header}" if name and header else f"`{name}`" if name else header
    return f"is not valid TOML: {where or 'something'} is stated twice, again in line {number}; keep one"


def _stated(lines: list[str]) -> tuple[str, str]:
    """What the last line states: a name ("" when it is a header), and the table it stands in ("" for none).

    A value may take several lines, so its name is looked for upwards.
    """
    name = ""
    for line in reversed(lines):
        header = _HEADER.match(line)
        if header is not None:
            return name, header[1]
        named = _NAME.match(line)
        if named is not None and not name:
            name = named[1]
    return name, ""
