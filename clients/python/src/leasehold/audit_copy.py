"""Check a copy of the log (see `tiles`), offline, with nothing but the public key. Owns the verdict on a folder.

What is caught where: an edited body by its digest; an edited, missing, added or moved entry by the chain or by its
tile; a copy that was made anew as a whole by the signed root; a history that was rewritten and signed again, a fork,
and a log that was cut, by any earlier checkpoint that was kept.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from leasehold.audit import GENESIS, TAKEN_OUT, Flaw, Head, Kept, Verdict, unreached
from leasehold.audit_gaps import DECLARES_GAP, Gaps
from leasehold.audit_tree import Roots
from leasehold.checkpoint import Checkpoint
from leasehold.errors import InvalidRequest
from leasehold.merkle import HASH_BYTES, Edge, fold
from leasehold.note import NOTE_BYTES_MAX, VerifierKey
from leasehold.tiles import CHECKPOINT, TILE_HASHES, UpperTiles, tile_path, tiles_of

_DOMAIN = b"leasehold/audit/v1\0"
_LINK_BYTES = 8 + 2 * HASH_BYTES
FILE_BYTES_MAX = TILE_HASHES * (4 + 70_000)


class _BadEntryError(Exception):
    def __init__(self, index: int, what: str) -> None:
        super().__init__(what)
        self.index = index


def verify_copy(
    folder: Path,
    key: VerifierKey,
    earlier: Iterable[Checkpoint] = (),
    kept: Iterable[Head] = (),
    *,
    bodies: bool = False,
) -> Verdict:
    """Check everything that the copy's own checkpoint speaks for.

    Args:
        folder: as `leasehold.tiles` lays it out.
        key: of the log.
        earlier: checkpoints that were kept elsewhere; their signatures have been checked.
        kept: heads that were kept elsewhere; the copy must reach each of them and agree with it.
        bodies: read every body too, for names that stand twice; takes twice as long.

    Raises:
        InvalidRequest: the copy has no checkpoint, or one that this key did not sign.
    """
    note = _read(folder / CHECKPOINT, NOTE_BYTES_MAX)
    if note is None:
        raise InvalidRequest.of_field("copy", f"{folder} has no checkpoint: it is no copy of a log, or not a whole one")
    newest = Checkpoint.of_note(note, key, "checkpoint of the copy")
    roots = Roots([*earlier, newest])
    verdict = Verdict()
    wanted = Kept(kept)
    check = _Check(folder, verdict, roots, wanted)
    for number, count in tiles_of(newest.size):
        check.tile(number, count)
        if bodies and verdict.flaw is None:
            check.bodies(number, count)
        if verdict.flaw is not None:
            break
    else:
        check.upper()
    if verdict.flaw is None:
        roots.finish(newest.size)
        verdict.unseen += unreached(wanted.rest(), verdict)
    verdict.wrong += roots.verdict.wrong
    verdict.held += roots.verdict.held
    return verdict


class _Check:
    """Goes through a copy, tile by tile."""

    def __init__(self, folder: Path, verdict: Verdict, roots: Roots, kept: Kept) -> None:
        self._folder = folder
        self._kept = kept
        self._verdict = verdict
        self._roots = roots
        self._edge = Edge()
        self._upper = UpperTiles()
        self._gaps = Gaps()
        # Whether a record with content was met that retention would have emptied before any younger one.
        self._content = False
        # For each stream and epoch (as the bytes before the link): what the next link must begin with.
        self._due: dict[bytes, bytes] = {}
        self._compare([])

    def tile(self, number: int, count: int) -> None:
        """The next tile of entries, and what lies above it."""
        files = [
            _read(self._folder / tile_path(kind, number, count), FILE_BYTES_MAX)
            for kind in ("tile/entries", "bodies", "tile/0")
        ]
        entries, bodies, hashes = files
        if entries is None or bodies is None or hashes is None:
            self._bad(number * TILE_HASHES, "it is not there: a file of the copy is missing")
            return
        leaves: list[bytes] = []
        what, index = "", 0
        try:
            self._entries(entries, bodies, count, leaves)
        except _BadEntryError as bad:
            what, index = str(bad), bad.index
        if what or b"".join(leaves) != hashes:
            what, index = _contradicted(leaves, hashes, count, what, index)
        elif self._kept:
            what, index = self._against_kept(entries)
        self._verdict.records += index if what else count
        if what:
            self._bad(number * TILE_HASHES + index, what)
            return
        self._compare(leaves)
        if count == TILE_HASHES:
            root = fold(leaves)
            self._edge.grow(root, TILE_HASHES)
            for level, at, data in self._upper.add(root):
                self._same(level, at, data)

    def bodies(self, number: int, count: int) -> None:
        """Read those of a tile that holds."""
        data, at = _read(self._folder / tile_path("bodies", number, count), FILE_BYTES_MAX) or b"", 0
        for index in range(count):
            begin = at + 4
            at = begin + int.from_bytes(data[at:begin], "big")
            self._verdict.twofold.look(data[begin:at], f"position {number * TILE_HASHES + index + 1}")

    def upper(self) -> None:
        """At the end: the tiles that are not full, and the heads."""
        for level, at, data in self._upper.rest():
            self._same(level, at, data)
        for prefix, due in self._due.items():
            stream, epoch, _ = prefix.split(b"\0")
            head = Head(_text(stream), _text(epoch), int.from_bytes(due[:8], "big") - 1, due[8:])
            self._verdict.heads[head.stream, head.epoch] = head
        self._verdict.gaps += self._gaps.used

    def _against_kept(self, entries: bytes) -> tuple[str, int]:
        at = index = 0
        while at < len(entries):
            end = at + 2 + int.from_bytes(entries[at : at + 2], "big")
            stream, epoch, link = entries[at + 2 : end].split(b"\0", 2)
            other = self._kept.met(_text(stream), _text(epoch), int.from_bytes(link[:8], "big"), link[-HASH_BYTES:])
            if other:
                return other, index
            at, index = end, index + 1
        return "", 0

    def _entries(self, entries: bytes, bodies: bytes, count: int, leaves: list[bytes]) -> None:  # noqa: C901, PLR0912 - inlined
        """Check `count` entries with their bodies; their hashes go to `leaves`. The one loop that must be fast.

        Raises:
            _BadEntryError: the first that does not hold by itself or by the chain.
        """
        sha256, due, domain, gaps = hashlib.sha256, self._due, _DOMAIN, self._gaps
        at = body_at = hash_only = width = sequence = 0
        prefix, expected, entries_end, bodies_end = b"", b"", len(entries), len(bodies)
        content = self._content
        for index in range(count):
            end = at + 2 + (entries[at] << 8 | entries[at + 1]) if at + 2 <= entries_end else entries_end + 1
            body_from = body_at + 4
            body_end = body_from + int.from_bytes(bodies[body_at:body_from], "big")
            if end > entries_end or body_end > bodies_end:
                raise _BadEntryError(index, "it is not there: its file is cut short")
            entry, body = entries[at + 2 : end], bodies[body_from:body_end]
            at, body_at = end, body_end
            if not prefix or len(entry) != width or not entry.startswith(prefix):
                if prefix:
                    due[prefix] = expected
                width = len(entry)
                prefix = entry[: width - _LINK_BYTES]
                if prefix.count(b"\0") != 2 or prefix[-1:] != b"\0":
                    raise _BadEntryError(index, "it is no entry of a log")
                expected = due.get(prefix) or (1).to_bytes(8, "big") + GENESIS
                sequence = int.from_bytes(expected[:8], "big")
            digest = entry[-32:]
            if entry[-72:-32] != expected:
                wrong = _explained(gaps, prefix, expected, entry[-72:])
                if wrong:
                    raise _BadEntryError(index, wrong)
                sequence = int.from_bytes(entry[-72:-64], "big")
            if body:
                if sha256(domain + entry[:-32] + body).digest() != digest:
                    raise _BadEntryError(index, "it was altered: its digest does not match its content")
                if DECLARES_GAP not in body or not gaps.declare(body):
                    content = True
            elif content:
                raise _BadEntryError(index, TAKEN_OUT)
            else:
                hash_only += 1
            sequence += 1
            expected = sequence.to_bytes(8, "big") + digest
            leaves.append(sha256(b"\0" + entry).digest())
        due[prefix] = expected
        self._content = content
        self._verdict.hash_only += hash_only
        if at != len(entries) or body_at != len(bodies):
            raise _BadEntryError(count - 1, "its file goes on after it: something was put in")

    def _compare(self, leaves: list[bytes]) -> None:
        first = self._edge.size
        while first <= self._roots.next_size <= first + len(leaves):
            size = self._roots.next_size
            if size - first == TILE_HASHES:
                whole = Edge.of(self._edge)
                whole.grow(fold(leaves), TILE_HASHES)
                self._roots.compare(size, whole.root())
            else:
                self._roots.compare(size, self._edge.root(leaves[: size - first]))

    def _same(self, level: int, number: int, data: bytes) -> None:
        path = tile_path(f"tile/{level}", number, len(data) // HASH_BYTES)
        if _read(self._folder / path, FILE_BYTES_MAX) != data:
            self._verdict.wrong.append(f"{path} is missing, or does not hold the hashes of the tiles below it")

    def _bad(self, index: int, what: str) -> None:
        self._verdict.flaw = Flaw(f"position {index + 1}", what)


def _contradicted(leaves: list[bytes], hashes: bytes, count: int, what: str, index: int) -> tuple[str, int]:
    """What is wrong: an entry that its own tile contradicts comes before whatever broke behind it."""
    for at, leaf in enumerate(leaves):
        if hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES] != leaf:
            return "it was altered: its hash is not the one in its tile", at
    if not what:
        return "its tile holds more hashes than there are entries", count - 1
    return what, index


def _explained(gaps: Gaps, prefix: bytes, due: bytes, link: bytes) -> str:
    stream, epoch, _ = prefix.split(b"\0")
    place, found = (int.from_bytes(of[:8], "big") for of in (due, link))
    return gaps.explain(_text(stream), _text(epoch), place, due[8:], found, link[8:40])


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _opened(name: str, flags: int) -> int:
    """A copy has no links: one would show an auditor what stands elsewhere on his own machine."""
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _read(path: Path, bytes_max: int) -> bytes | None:
    """The file; None when it is missing.

    Raises:
        InvalidRequest: it cannot be read, is no regular file, or is larger than any file of a copy.
    """
    try:
        with open(path, "rb", opener=_opened) as file:
            # A pipe would be waited for, a device never ends.
            data = file.read(bytes_max + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.EISDIR}:
            raise InvalidRequest.of_field("copy", f"{path} cannot be read: {error.strerror}") from None
        data = None
    if data is None:
        raise InvalidRequest.of_field("copy", f"{path} is no regular file")
    if len(data) > bytes_max:
        raise InvalidRequest.of_field("copy", f"{path} is larger than a file of a copy can be")
    return data
