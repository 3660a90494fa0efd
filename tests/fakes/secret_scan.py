"""Looks for secrets in what a run left behind: files, logs, databases, environments, arguments, answers.

A secret is looked for as it is, in the codings that software puts things into, and by a telling part of it.
"""

import base64
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path

PART_BYTES = 20


def forms(secret: bytes) -> set[bytes]:
    """All byte strings that give `secret` away."""
    middle = len(secret) // 2 - PART_BYTES // 2
    found = {secret, secret[max(0, middle) : middle + PART_BYTES], secret[-PART_BYTES:], secret[::-1]}
    for shift in range(3):
        # The same bytes give other base64 letters at each of three positions; the outermost letters mix with others.
        coded = base64.b64encode(b"\0" * shift + secret).rstrip(b"=")
        found |= {coded[4:-2], coded[4:-2].translate(bytes.maketrans(b"+/", b"-_"))}
    found |= {secret.hex().encode(), secret.hex().upper().encode()}
    try:
        text = secret.decode("ascii")
    except UnicodeDecodeError:
        return found
    quoted = "".join(f"%{byte:02X}" for byte in secret)
    return found | {text.encode("utf-16-le"), urllib.parse.quote(text, safe="").encode(), quoted.encode()}


class Scanner:
    """Knows secrets by label; tells where any of them is."""

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        """Look for these."""
        self._forms = {label: forms(secret) for label, secret in secrets.items()}

    def hits(self, where: str, content: bytes) -> list[str]:
        """What was found in `content`: "label in where"."""
        return [f"{label} in {where}" for label, known in self._forms.items() if any(form in content for form in known)]

    def hits_in_files(self, root: Path, without: Iterable[Path] = ()) -> list[str]:
        """What was found in the names and contents of all files below `root`, except those below `without`."""
        left_out = tuple(without)
        found = []
        for path in sorted(root.rglob("*")):
            if any(path.is_relative_to(one) for one in left_out):
                continue
            found += self.hits(f"the name of {path.name}", str(path).encode())
            if path.is_file():
                found += self.hits(str(path.relative_to(root)), path.read_bytes())
        return found

    def hits_in_process(self, pid: int, name: str) -> list[str]:
        """What was found in the environment and arguments of a process."""
        proc = Path(f"/proc/{pid}")
        return [
            hit for file in ("environ", "cmdline") for hit in self.hits(f"{file} of {name}", (proc / file).read_bytes())
        ]
