"""Reading a table of a TOML file a person wrote. Owns the complaints: each names the path, what was wrong, what to do.

Nothing is repaired and nothing is skipped: every complaint is collected, so that one run shows them all.
"""

import difflib
from collections.abc import Callable, Iterable

NAME_CHARACTERS_MAX = 128


class TomlTable:
    """One table: values are taken out by name; what is left at the end is unknown and complained of."""

    def __init__(self, value: object, path: str, complaints: list[str]) -> None:
        """Take the table at `path`; complaints are appended to the given list."""
        self.path = path
        self._complaints = complaints
        self._known: list[str] = []
        self._values: dict[str, object] = {}
        if isinstance(value, dict):
            self._values = value
        else:
            self.complain("", f"must be a table, was {_kind(value)}")

    def complain(self, name: str, text: str) -> None:
        """Add a complaint about one member; an empty name complains of the table itself."""
        where = ".".join(part for part in (self.path, name) if part)
        self._complaints.append(f"{where}: {text}")

    def has(self, name: str) -> bool:
        """True when the member is stated."""
        return name in self._values

    def take(self, name: str) -> object:
        """The raw value, or None."""
        self._known.append(name)
        return self._values.get(name)

    def text(self, name: str, *, default: str | None = None, allowed: Iterable[str] = ()) -> str:
        """A name: printable text of at most 128 characters, of the allowed ones when any are given."""
        value = self.take(name)
        if value is None and default is not None:
            return default
        if value is None:
            self.complain(name, "is missing; add it")
            return ""
        choices = sorted(allowed)
        if not isinstance(value, str) or not is_name(value):
            self.complain(name, f"must be text of 1 to {NAME_CHARACTERS_MAX} printable characters, was {_kind(value)}")
            return ""
        if choices and value not in choices:
            self.complain(name, f"must be one of {', '.join(choices)}, was {value!r}{_meant(value, choices)}")
            return ""
        return value

    def integer(self, name: str, low: int, high: int, *, default: int | None = None) -> int:
        """A whole number within bounds."""
        value = self.take(name)
        if value is None and default is not None:
            return default
        if value is None:
            wanted = f"{name} = {low}" if low == high else f"a whole number from {low} to {high}"
            self.complain(name, f"is missing; add {wanted}")
            return low
        if type(value) is not int or not low <= value <= high:
            shown = value if type(value) is int else _kind(value)
            wanted = str(low) if low == high else f"a whole number from {low} to {high}"
            self.complain(name, f"must be {wanted}, was {shown}")
            return low
        return value

    def texts(
        self, name: str, *, required: bool, wrong: Callable[[str], str | None] = lambda _text: None
    ) -> tuple[str, ...]:
        """A list of different names; `wrong` says what is wrong with one of them, or None."""
        value = self.take(name)
        if value is None:
            if required:
                self.complain(name, "is missing; add a list with at least one text")
            return ()
        if not isinstance(value, list) or (required and not value):
            self.complain(
                name, f"must be a list of texts{' with at least one' if required else ''}, was {_kind(value)}"
            )
            return ()
        taken: list[str] = []
        for number, member in enumerate(value):
            if not isinstance(member, str) or not member:
                self.complain(f"{name}[{number}]", f"must be text, was {_kind(member)}")
            elif member in taken:
                self.complain(f"{name}[{number}]", f"{member!r} is listed twice; remove one")
            else:
                text = wrong(member)
                if text is not None:
                    self.complain(f"{name}[{number}]", text)
                taken.append(member)
        return tuple(taken)

    def integers(self, name: str, low: int, high: int) -> tuple[int, ...]:
        """A list of different whole numbers within bounds; empty when it is not stated, never when it is."""
        value = self.take(name)
        if value is None:
            return ()
        good = isinstance(value, list) and all(type(one) is int and low <= one <= high for one in value)
        if not good or not isinstance(value, list) or not value or len(set(value)) != len(value):
            self.complain(
                name, f"must list different whole numbers from {low} to {high}, at least one, or be left out for any"
            )
            return ()
        return tuple(value)

    def table(self, name: str) -> "TomlTable | None":
        """A table within, or None when it is not stated."""
        value = self.take(name)
        return None if value is None else TomlTable(value, self._path_of(name), self._complaints)

    def tables(self, name: str, *, required: bool = False) -> "list[TomlTable]":
        """A list of tables within ([[...]])."""
        value = self.take(name)
        path = self._path_of(name)
        if value is None or value == []:
            if required:
                self.complain(name, f"is missing; add at least one [[{path}]]")
            return []
        if not isinstance(value, list):
            self.complain(name, f"must be written as [[{path}]], was {_kind(value)}")
            return []
        return [TomlTable(member, f"{path}[{number}]", self._complaints) for number, member in enumerate(value)]

    def members(self) -> list[str]:
        """Names of all members, for tables whose names are free."""
        return list(self._values)

    def done(self) -> None:
        """Complain of every member that was not asked for."""
        for name in self._values:
            if name not in self._known:
                known = ", ".join(sorted(self._known))
                self.complain(name, f"is not known here{_meant(name, self._known)}; known: {known}")

    def _path_of(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def is_name(text: str) -> bool:
    """True for printable text without outer spaces, of bounded length."""
    return 0 < len(text) <= NAME_CHARACTERS_MAX and text.isprintable() and text == text.strip()


def _kind(value: object) -> str:
    if isinstance(value, (str, bool)):
        return repr(value)[:80]
    names = {int: "a number", float: "a number with a fraction", list: "a list", dict: "a table"}
    if isinstance(value, list) and not value:
        return "an empty list"
    return names.get(type(value), type(value).__name__)


def _meant(text: str, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(text, list(choices), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
