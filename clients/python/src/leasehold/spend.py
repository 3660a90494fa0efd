"""What was spent, from the audit log alone. Owns the sums by subject, key, model, day ...; reads no log itself.

A call counts once, when it is settled, on the UTC day of that. What was voided cost nothing and is not counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leasehold.audit import Record
from leasehold.audit_events import object_of, read_body, time_of, whole_of
from leasehold.errors import InvalidRequest

GROUPS = ("subject", "key", "provider", "model", "lease", "stream", "day")
UNKNOWN = "(unknown)"
"""Of a call whose sidecar was killed, when its admission is not in what was read."""
OPEN_CALLS_MAX = 1_000_000


@dataclass(slots=True)
class Spent:
    """Sums of one group: micro-USD, tokens, calls, and of these the ones that were estimated, and that cost money."""

    cost_micro_usd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    estimated: int = 0
    billed: int = 0

    def add(self, details: Mapping[str, Any]) -> None:
        """Count one settlement."""
        charged = object_of(details, "charged")
        self.cost_micro_usd += whole_of(charged, "cost_micro_usd")
        self.input_tokens += whole_of(charged, "input_tokens")
        self.output_tokens += whole_of(charged, "output_tokens")
        self.calls += 1
        self.estimated += bool(details.get("estimated"))
        self.billed += whole_of(charged, "cost_micro_usd") > 0


def spent_by(records: Iterable[Record], groups: Sequence[str]) -> dict[tuple[str, ...], Spent]:
    """The sums by these groups, the largest first.

    Args:
        records: events "call." in the order of the log; others are passed over.
        groups: of `GROUPS`.

    Raises:
        InvalidRequest: an unknown group.
    """
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise InvalidRequest.of_field("groups", f"has {unknown[0]!r}; give some of {', '.join(GROUPS)}")
    admitted: dict[str, Mapping[str, Any]] = {}
    found: dict[tuple[str, ...], Spent] = {}
    for record in records:
        event = read_body(record.body) or {}
        details = object_of(event, "details")
        call = str(details.get("call", ""))
        if event.get("type") == "call.admitted":
            admitted[call] = details
            while len(admitted) > OPEN_CALLS_MAX:
                del admitted[next(iter(admitted))]
        elif event.get("type") == "call.settled":
            known = {**admitted.pop(call, {}), **details}
            if not details.get("voided"):
                name = tuple(_value(group, record, event, known) for group in groups)
                found.setdefault(name, Spent()).add(details)
    return dict(sorted(found.items(), key=lambda one: (-one[1].cost_micro_usd, one[0])))


def _value(group: str, record: Record, event: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    if group == "day":
        return time_of(event).date().isoformat()
    if group == "stream":
        return record.stream
    if group == "lease":
        return str(event.get("lease") or UNKNOWN)
    if group == "subject":
        return str(object_of(event, "subject").get("subject") or UNKNOWN)
    return str(details.get(group) or UNKNOWN)
