"""Losses that a collector declared. Owns what excuses a jump in a stream: an event that said so, before it.

After its store was lost or restored from an older copy, an operator may let the fleet go on. The collector then writes
an event that names each hole; a verifier accepts that hole and no other, and says so.
"""

import json

DECLARES_GAP = b'"audit.gap_accepted"'


class Gaps:
    """What was declared, and what of it was met."""

    def __init__(self) -> None:
        """Nothing declared."""
        self._declared: dict[tuple[str, str, int], tuple[int, str]] = {}
        self.used: list[str] = []

    def declare(self, body: bytes) -> bool:
        """Take in an event's body that may be a declaration. Gives whether it is one: retention keeps those."""
        try:
            event = json.loads(body)
            if event["type"] != "audit.gap_accepted":
                return False
            of = event["details"]
            first, last = of["first_missing"], of["last_missing"]
            if type(first) is int and type(last) is int:
                self._declared[of["gap_stream"], of["gap_epoch"], first] = (last, of["digest"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        return True

    def explain(
        self, stream: str, epoch: str, due: int, digest_due: bytes, sequence: int, previous_digest: bytes
    ) -> str:
        """Whether a record may stand where it stands: "" when it follows, or when a declared gap explains it.

        Args:
            stream: of the record.
            epoch: of the record.
            due: sequence that should come next.
            digest_due: digest of the record before.
            sequence: of the record.
            previous_digest: of the record.
        """
        if sequence == due and previous_digest == digest_due:
            return ""
        if self._declared.get((stream, epoch, due)) == (sequence - 1, previous_digest.hex()):
            self.used.append(f"stream {stream}, epoch {epoch}: records {due} to {sequence - 1} were lost")
            return ""
        if sequence != due:
            lack = (
                "records are missing, repeated or out of order" if due > 1 else "the beginning of the epoch is missing"
            )
            return f"sequence {due} was due: {lack}"
        return "it does not follow the record before it"
