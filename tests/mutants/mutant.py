"""One planted bug: a change of a line or two, and who must notice it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One planted bug, in a file of `leasehold_broker`."""

    name: str
    breaks: str
    file: str
    before: str
    after: str
    suites: tuple[str, ...]
