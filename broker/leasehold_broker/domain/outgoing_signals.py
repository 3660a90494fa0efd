"""What other systems are told: revoked leases as CAEP session-revoked, keys as credential-change. Owns the claims.

A token's `jti` is made of its stream and the place of its event in the log, so that the same event always gives the
same token: a receiver that gets it twice knows. Its `txn` is made of the place alone, and is the same in every stream.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from leasehold_broker.domain.events import Event, EventType
from leasehold_broker.domain.security_events import CREDENTIAL_CHANGE, SESSION_REVOKED, VERIFICATION

CREDENTIAL_TYPE: Final = "api-key"
"""CAEP lets transmitter and receiver agree on types beyond its list; none of those is a provider's key."""
Claims = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SignalStream:
    """One receiver.

    Args:
        name: of the stream: its `stream_id`.
        issuer: ours, in every token.
        audience: `aud` of its tokens.
        types: event types that it is told.
    """

    name: str
    issuer: str
    audience: str
    types: frozenset[str]


def outgoing(event: Event, place: str, receive_wall_ms: int, stream: SignalStream) -> Claims | None:
    """The claims of the token that tells this stream of this event of the log; None for nothing.

    Args:
        event: from the log.
        place: stream, epoch, sequence of it.
        receive_wall_ms: when it came: `iat`, so that a token that is made again is the same.
        stream: who is told.
    """
    told = _told(event, stream)
    if told is None:
        return None
    kind, subject, payload = told
    if kind != VERIFICATION and kind not in stream.types:
        return None
    return {
        "iss": stream.issuer,
        "aud": stream.audience,
        "jti": hashlib.sha256(f"{stream.name} {place}".encode()).hexdigest()[:32],
        "iat": receive_wall_ms // 1000,
        "txn": hashlib.sha256(place.encode()).hexdigest()[:32],
        "sub_id": subject,
        "events": {kind: payload},
    }


def _told(event: Event, stream: SignalStream) -> tuple[str, Claims, Claims] | None:
    details = event.details
    match event.type:
        case EventType.LEASE_REVOKED if event.lease and event.subject is not None:
            subject: Claims = {
                "format": "complex",
                "session": {"format": "opaque", "id": event.lease},
                "user": {"format": "iss_sub", "iss": event.subject.issuer, "sub": event.subject.subject},
            }
            by = str(details.get("revocation", ""))
            return SESSION_REVOKED, subject, _payload(event, "admin" if by.startswith("revocations/") else "policy", by)
        case EventType.KEY_TAKEN_OUT:
            return _key(event, "revoke", "its provider refuses it")
        case EventType.KEY_DISABLED_UPSTREAM:
            return _key(event, "revoke", "it was ended at its provider")
        case EventType.KEY_ROTATION_DONE:
            return _key(event, "update", "rotated")
        case EventType.REVOCATION_ISSUED if "lifts" not in details:
            return _key(event, "revoke", "every lease of it was revoked")
        case EventType.SIGNAL_VERIFICATION if details.get("stream") == stream.name:
            state = details.get("state")
            return VERIFICATION, {"format": "opaque", "id": stream.name}, {"state": state} if state else {}
        case _:
            return None


def _key(event: Event, change: str, why: str) -> tuple[str, Claims, Claims] | None:
    key = event.details.get("key")
    if not isinstance(key, str) or not key:
        return None
    more = {"credential_type": CREDENTIAL_TYPE, "change_type": change, "friendly_name": key}
    return CREDENTIAL_CHANGE, {"format": "opaque", "id": key}, {**more, **_payload(event, "admin", why)}


def _payload(event: Event, entity: str, why: str) -> Claims:
    payload: dict[str, object] = {"event_timestamp": event.wall_ms // 1000, "initiating_entity": entity}
    return payload | ({"reason_admin": {"en": why}} if why else {})
