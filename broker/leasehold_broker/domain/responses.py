"""What may be done about a finding. Values only; flows/respond_to_findings.py acts on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Response(StrEnum):
    """What is done."""

    TELL = "tell"
    REVOKE_LEASE = "revoke-lease"
    BLOCK_SUBJECT = "block-subject"


@dataclass(frozen=True, slots=True)
class ResponseRules:
    """What is done about each kind of finding.

    Args:
        by_kind: response by the finding's name ("spend_rate", "honeytoken"); what is not there is told only.
        block_seconds: how long a blocked subject gets no new leases; 0: until somebody lifts it.
        revocations_per_hour_max: no more than this, whatever is found.
    """

    by_kind: Mapping[str, Response] = field(default_factory=dict)
    block_seconds: int = 0
    revocations_per_hour_max: int = 5
