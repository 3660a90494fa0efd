"""What provider keys look like in tests, so that one search after the suite finds any of them wherever it got to.

Owns the marker that every key has which a test puts into a store, a vendor or a process. `planted_search` looks for it.
"""

import re
from pathlib import Path

MARKER = "PLANTED9x7Qz"
STAND_IN = re.compile(rb"sk-stand-in-[a-z]+-[0-9a-f]{8}")
"""The keys that the demo makes up for its stand-in of a provider; what is left of a redacted one is none."""

ON_PURPOSE = ".planted-on-purpose"


def planted(label: str = "", prefix: str = "sk-") -> str:
    """A provider key of a recognisable shape, always the same for a label."""
    return f"{prefix}{MARKER}-{label}" if label else f"{prefix}{MARKER}"


def on_purpose(path: Path) -> Path:
    """`path`, a file or a folder that holds a planted key because an operator or the test put it there.

    The search leaves it out. It is told by an empty file next to it, because the search is made by another process.
    """
    path.with_name(path.name + ON_PURPOSE).touch()
    return path
