"""Bodies in which a name stands twice: what they say depends on who reads them.

The chain holds over such a body all the same: these bytes are what that sidecar wrote and what was signed. The broker's
own encoder cannot write one, so whoever did is another program. Told beside a verdict, never instead of it.
"""

import json
from dataclasses import dataclass
from typing import Any


class _TwiceError(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(slots=True)
class TwofoldBodies:
    """What was found: how many records, and the first of them in words; "" for none."""

    count: int = 0
    first: str = ""

    def look(self, body: bytes, where: str) -> None:
        """Read a body as strictly as anybody could; `where` it stands."""
        name = _twice(body)
        if name is not None:
            self.count += 1
            self.first = self.first or f"{where}: {name!r} stands twice in one object of its body"


def _twice(body: bytes) -> str | None:
    """The first name that stands twice in one object; None when there is none, also where the body is no JSON."""
    try:
        _DECODER.decode(body.decode("utf-8", "surrogateescape"))
    except _TwiceError as twice:
        return twice.name
    except (ValueError, RecursionError):
        return None
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _TwiceError(name)
            seen.add(name)
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=_once)
