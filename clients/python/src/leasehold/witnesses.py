"""Who must have seen a checkpoint: a policy of witnesses, as Sigsum, Tessera and torchwood have it. Owns reading it.

    log      KEY                              the log's verifier key, exactly one
    witness  NAME KEY [URL]                   KEY of C2SP tlog-cosignature; URL where it takes checkpoints
    group    NAME any|all|NUMBER NAME...      of witnesses and groups named above
    quorum   NAME|none                        which of them must have cosigned

A "#" begins a comment. A witness cosigns only a log that grew from what it saw last: what a quorum has cosigned
cannot be rewritten, or shown in two versions, without them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from leasehold.audit import Verdict
from leasehold.checkpoint import Checkpoint
from leasehold.errors import InvalidRequest
from leasehold.note import COSIGNATURE, SignedNote, VerifierKey

LINES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Witness:
    """One witness. `url` is "" where only its cosignatures are checked."""

    name: str
    key: VerifierKey
    url: str


@dataclass(frozen=True, slots=True)
class Group:
    """So many of these, each the name of a witness or of a group."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WitnessPolicy:
    """Whose word is asked for.

    Args:
        log: the log's key.
        witnesses: by name.
        groups: by name; members come before their group.
        quorum: name of one of them; "" when none is asked for.
    """

    log: VerifierKey
    witnesses: Mapping[str, Witness]
    groups: Mapping[str, Group]
    quorum: str

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Read it.

        Raises:
            InvalidRequest: says which line is wrong, and how.
        """
        logs: list[VerifierKey] = []
        witnesses: dict[str, Witness] = {}
        groups: dict[str, Group] = {}
        quorums: list[str] = []
        lines = text.split("\n")
        if len(lines) > LINES_MAX:
            raise InvalidRequest.of_field("policy", f"has more than {LINES_MAX} lines")
        for number, line in enumerate(lines, start=1):
            words = line.partition("#")[0].split()
            where = f"line {number} of the policy"
            match words:
                case []:
                    pass
                case ["log", key]:
                    logs.append(_key(key, where))
                case ["witness", name, key, *url] if len(url) < 2:
                    _must_be_new(name, {**witnesses, **groups}, where)
                    witnesses[name] = Witness(name, _key(key, where, COSIGNATURE), url[0] if url else "")
                case ["group", name, threshold, *members] if members:
                    _must_be_new(name, {**witnesses, **groups}, where)
                    _must_be_known(members, {**witnesses, **groups}, where)
                    groups[name] = Group(_threshold(threshold, len(members), where), tuple(members))
                case ["quorum", name]:
                    if name != "none":
                        _must_be_known([name], {**witnesses, **groups}, where)
                    quorums.append(name)
                case _:
                    raise InvalidRequest.of_field(
                        where, "is neither log, witness, group nor quorum as the format has it"
                    )
        if len(logs) != 1 or len(quorums) != 1:
            raise InvalidRequest.of_field("policy", "must have exactly one log and one quorum")
        return cls(logs[0], witnesses, groups, "" if quorums[0] == "none" else quorums[0])

    def cosigners(self, note: SignedNote) -> dict[str, int]:
        """The witnesses whose cosignature is on the note and holds, and when each gave it, in Unix seconds.

        Raises:
            InvalidRequest: one of them is there, and does not hold.
        """
        found = {name: note.cosigned_seconds(witness.key) for name, witness in self.witnesses.items()}
        return {name: seconds for name, seconds in found.items() if seconds is not None}

    def satisfied(self, cosigners: Iterable[str]) -> bool:
        """Whether these are a quorum."""
        held = set(cosigners)
        for name, group in self.groups.items():
            if sum(member in held for member in group.members) >= group.threshold:
                held.add(name)
        return not self.quorum or self.quorum in held


def _key(text: str, where: str, algorithm: int | None = None) -> VerifierKey:
    try:
        return VerifierKey.of_text(text) if algorithm is None else VerifierKey.of_text(text, algorithm)
    except InvalidRequest as refused:
        raise InvalidRequest.of_field(where, "has a key that " + refused.violations[0].description) from None


def _must_be_new(name: str, known: Mapping[str, object], where: str) -> None:
    if name in known or name == "none":
        raise InvalidRequest.of_field(where, f"names {name!r}, and that name is taken")


def _must_be_known(names: Iterable[str], known: Mapping[str, object], where: str) -> None:
    for name in names:
        if name not in known:
            raise InvalidRequest.of_field(where, f"names {name!r}, and no line above it does")


def _threshold(word: str, count: int, where: str) -> int:
    if word in {"any", "all"}:
        return 1 if word == "any" else count
    if not (word.isascii() and word.isdecimal()) or len(word) > 4 or not 1 <= int(word) <= count:
        raise InvalidRequest.of_field(
            where, f"asks for {word!r} of {count}: any, all or a number up to that was expected"
        )
    return int(word)


def judge_witnesses(policy: WitnessPolicy, notes: Mapping[str, bytes], verdict: Verdict) -> None:
    """Add to a verdict whether one of these checkpoints, each by its file, has the quorum; the newest that has is told.

    Raises:
        InvalidRequest: one is no checkpoint of the policy's log, or a cosignature on it does not hold.
    """
    found: list[tuple[int, str]] = []
    for path, raw in notes.items():
        cosigners = policy.cosigners(SignedNote.of_bytes(raw, path))
        if policy.satisfied(cosigners):
            words = ", ".join(cosigners) or "nobody: the policy asks for nobody"
            found.append((Checkpoint.of_note(raw, policy.log, path).size, words))
    if not found:
        verdict.wrong.append(
            "no checkpoint has the cosignatures of the policy's quorum; get one with 'leasehold audit checkpoint "
            "--keep FILE --policy FILE', and give it with --checkpoint"
        )
        return
    size, words = max(found)
    after = verdict.records - size
    rest = f"; {after} events after it are not" if after > 0 else ""
    verdict.witnessed.append(f"the checkpoint of {size} events, by {words}{rest}")
