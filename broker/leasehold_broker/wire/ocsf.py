"""Audit records as OCSF 1.8 events, for a SIEM. Owns the mapping; the record stays the truth, and is named in each.

Calls are API Activity (6003), grants Authorize Session (3003), identities Authentication (3002), what wants a human's
look Detection Finding (2004), all else Entity Management (3004). What OCSF has no place for goes to `unmapped`.
Attributes are those of https://schema.ocsf.io/1.8.0; money stays integer micro-USD.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from leasehold_broker.domain.audit_query import StoredRecord

VERSION = "1.8.0"
DIGITS_MAX = 18
API_ACTIVITY, AUTHORIZE_SESSION, ENTITY_MANAGEMENT = 6003, 3003, 3004
AUTHENTICATION, DETECTION_FINDING = 3002, 2004
_CLASS_NAMES = {
    API_ACTIVITY: "API Activity",
    AUTHORIZE_SESSION: "Authorize Session",
    ENTITY_MANAGEMENT: "Entity Management",
    AUTHENTICATION: "Authentication",
    DETECTION_FINDING: "Detection Finding",
}
_CATEGORIES = {2: "Findings", 3: "Identity & Access Management", 6: "Application Activity"}
_INFORMATIONAL, _LOW, _MEDIUM, _HIGH = 1, 2, 3, 4
_SEVERITIES = {_INFORMATIONAL: "Informational", _LOW: "Low", _MEDIUM: "Medium", _HIGH: "High"}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Class and activity of one type of event, and its severity when it went as it should."""

    class_uid: int
    activity_id: int
    severity_id: int = _INFORMATIONAL


_CREATE, _READ, _UPDATE, _DELETE = 1, 2, 3, 4
_ENABLE, _DISABLE, _ACTIVATE, _DEACTIVATE, _SUSPEND = 8, 9, 10, 11, 12
_ASSIGN_PRIVILEGES = _LOGON = 1
_LOGOFF = 2

_KINDS: Mapping[str, _Kind] = {
    "call.admitted": _Kind(API_ACTIVITY, _CREATE),
    "call.settled": _Kind(API_ACTIVITY, _UPDATE),
    "call.refused": _Kind(API_ACTIVITY, _CREATE, _LOW),
    "lease.acquired": _Kind(AUTHORIZE_SESSION, _ASSIGN_PRIVILEGES),
    "lease.delegated": _Kind(AUTHORIZE_SESSION, _ASSIGN_PRIVILEGES),
    "lease.renewed": _Kind(AUTHORIZE_SESSION, _ASSIGN_PRIVILEGES),
    "lease.validated": _Kind(AUTHORIZE_SESSION, _ASSIGN_PRIVILEGES),
    "lease.refused": _Kind(AUTHORIZE_SESSION, _ASSIGN_PRIVILEGES, _LOW),
    "lease.released": _Kind(ENTITY_MANAGEMENT, _DEACTIVATE),
    "lease.expired": _Kind(ENTITY_MANAGEMENT, _DEACTIVATE),
    "lease.revoked": _Kind(ENTITY_MANAGEMENT, _DEACTIVATE, _MEDIUM),
    "lease.frozen": _Kind(DETECTION_FINDING, _CREATE, _HIGH),
    "identity.refused": _Kind(AUTHENTICATION, _LOGON, _LOW),
    "operator.signed_in": _Kind(AUTHENTICATION, _LOGON),
    "operator.signed_out": _Kind(AUTHENTICATION, _LOGOFF),
    "sidecar.connected": _Kind(AUTHENTICATION, _LOGON),
    "sidecar.started": _Kind(ENTITY_MANAGEMENT, _ACTIVATE),
    "sidecar.stopped": _Kind(ENTITY_MANAGEMENT, _DEACTIVATE),
    "sidecar.banned": _Kind(ENTITY_MANAGEMENT, _DEACTIVATE, _MEDIUM),
    "sidecar.readmitted": _Kind(ENTITY_MANAGEMENT, _ACTIVATE, _LOW),
    "sidecar.evicted": _Kind(ENTITY_MANAGEMENT, _DEACTIVATE),
    "collector.started": _Kind(ENTITY_MANAGEMENT, _ACTIVATE),
    "collector.failed": _Kind(DETECTION_FINDING, _CREATE, _HIGH),
    "collector.stopped": _Kind(ENTITY_MANAGEMENT, _DEACTIVATE),
    "revocation.issued": _Kind(ENTITY_MANAGEMENT, _CREATE, _MEDIUM),
    "revocation.validated": _Kind(ENTITY_MANAGEMENT, _READ),
    "policy.rejected": _Kind(ENTITY_MANAGEMENT, _UPDATE, _MEDIUM),
    "budget.threshold": _Kind(DETECTION_FINDING, _CREATE, _MEDIUM),
    "key.rotation_delayed": _Kind(DETECTION_FINDING, _CREATE, _MEDIUM),
    "key.rotation_awaits_person": _Kind(DETECTION_FINDING, _CREATE, _MEDIUM),
    "key.rotation_failed": _Kind(DETECTION_FINDING, _CREATE, _HIGH),
    "key.rotation_refused": _Kind(DETECTION_FINDING, _CREATE, _MEDIUM),
    "key.not_revoked": _Kind(DETECTION_FINDING, _CREATE, _MEDIUM),
    "audit.read": _Kind(ENTITY_MANAGEMENT, _READ),
    "audit.refused": _Kind(DETECTION_FINDING, _CREATE, _MEDIUM),
    "audit.gap_accepted": _Kind(DETECTION_FINDING, _CREATE, _HIGH),
    "audit.spool_filling": _Kind(DETECTION_FINDING, _CREATE, _HIGH),
    "audit.tail_unknown": _Kind(DETECTION_FINDING, _CREATE, _MEDIUM),
    "signal.received": _Kind(ENTITY_MANAGEMENT, _READ),
    "signal.refused": _Kind(DETECTION_FINDING, _CREATE, _MEDIUM),
    "sink.failed": _Kind(DETECTION_FINDING, _CREATE, _MEDIUM),
    "revocation.lagging": _Kind(DETECTION_FINDING, _CREATE, _HIGH),
    "revocation.set_aside": _Kind(DETECTION_FINDING, _CREATE, _HIGH),
    "budget.change_set_aside": _Kind(DETECTION_FINDING, _CREATE, _HIGH),
    "budget.share_outlying": _Kind(DETECTION_FINDING, _CREATE, _MEDIUM),
    "audit.disk_low": _Kind(DETECTION_FINDING, _CREATE, _HIGH),
    "task.failed": _Kind(DETECTION_FINDING, _CREATE, _MEDIUM),
}
_FINDINGS = ("finding.", "anomaly.", "alert.", "honeytoken.")
_FINDING = _Kind(DETECTION_FINDING, _CREATE, _HIGH)
_OTHER = _Kind(ENTITY_MANAGEMENT, _UPDATE)
_STATUS = {"allowed": (1, "Success"), "denied": (2, "Failure"), "failed": (2, "Failure")}


def ocsf_event(stored: StoredRecord) -> Json:
    """One record as an OCSF event, ready for JSON.

    Raises:
        ValueError: the record has no body (dropped by retention), or none that is an event.
    """
    body = _body(stored)
    type_ = str(body["type"])
    kind = _kind_of(type_)
    status_id, status = _STATUS.get(str(body.get("outcome")), (99, "Other"))
    severity = kind.severity_id if status_id == 1 or kind.severity_id > _INFORMATIONAL else _LOW
    event: Json = {
        "class_uid": kind.class_uid,
        "class_name": _CLASS_NAMES[kind.class_uid],
        "category_uid": kind.class_uid // 1000,
        "category_name": _CATEGORIES[kind.class_uid // 1000],
        "activity_id": kind.activity_id,
        "type_uid": kind.class_uid * 100 + kind.activity_id,
        "severity_id": severity,
        "severity": _SEVERITIES[severity],
        "status_id": 1 if kind.class_uid == DETECTION_FINDING else status_id,
        "status": "New" if kind.class_uid == DETECTION_FINDING else status,
        "time": body["wall_ms"],
        "message": _message(type_, body),
        "metadata": _metadata(stored, body, type_),
        "unmapped": _unmapped(body),
    }
    if kind.class_uid != DETECTION_FINDING and "reason" in body:
        event["status_code"] = str(body["reason"])
    return event | _PARTS[kind.class_uid](stored, body, type_)


def _kind_of(type_: str) -> _Kind:
    found = _KINDS.get(type_)
    if found is None:
        found = _FINDING if type_.startswith(_FINDINGS) else _OTHER
    return found


def _body(stored: StoredRecord) -> Json:
    try:
        body = _decoded(stored.record.body)
        if not isinstance(body["type"], str) or type(body["wall_ms"]) is not int:
            raise ValueError  # noqa: TRY301 - told as one below
    except (ValueError, KeyError, msgspec.MsgspecError):
        message = f"the record at position {stored.position} has no event to export"
        raise ValueError(message) from None
    return body


def _decoded(body: bytes) -> Json:
    """Any event that the log has taken, whoever wrote it: one that cannot be exported would hold up all behind it."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        # Numbers that no integer or double holds are legal JSON: as text.
        return dict(json.loads(body, parse_float=str, parse_int=_whole))


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= DIGITS_MAX else digits


def _message(type_: str, body: Json) -> str:
    said = _details(body).get("message")
    return f"{type_}: {said}" if isinstance(said, str) and said else type_


def _metadata(stored: StoredRecord, body: Json, type_: str) -> Json:
    record = stored.record
    metadata: Json = {
        "version": VERSION,
        "uid": _uid(stored),
        "event_code": type_,
        "sequence": record.sequence,
        "log_name": record.stream,
        "log_version": record.epoch,
        "logged_time": stored.receive_wall_ms,
        "product": {"name": "leasehold", "vendor_name": "leasehold"},
    }
    if body.get("request_id"):
        metadata["correlation_uid"] = str(body["request_id"])
    return metadata


def _unmapped(body: Json) -> Json:
    kept = {name: body[name] for name in ("lease", "outcome", "reason", "details") if name in body}
    labels = _subject(body).get("labels")
    return kept | ({"labels": labels} if labels else {})


def _uid(stored: StoredRecord) -> str:
    record = stored.record
    return f"{record.stream}/{record.epoch}/{record.sequence}"


def _details(body: Json) -> Json:
    details = body.get("details")
    return details if isinstance(details, dict) else {}


def _subject(body: Json) -> Json:
    subject = body.get("subject")
    return subject if isinstance(subject, dict) else {}


def _user(body: Json) -> Json:
    subject = _subject(body)
    if not subject.get("subject"):
        return {"name": "unknown", "type_id": 0}
    user = {"uid": str(subject["subject"]), "name": str(subject["subject"]), "type_id": 4}
    return user | ({"domain": str(subject["issuer"])} if subject.get("issuer") else {})


def _session(body: Json) -> Json:
    session: Json = {"uid": str(body["lease"])}
    expires = _details(body).get("expire_wall_ms")
    return session | ({"expiration_time": expires} if type(expires) is int else {})


def _actor(stored: StoredRecord, body: Json) -> Json:
    actor: Json = {"user": _user(body), "app_name": stored.record.stream}
    return actor | ({"session": _session(body)} if body.get("lease") else {})


def _endpoint(stored: StoredRecord, body: Json) -> Json:
    endpoint: Json = {"name": stored.record.stream}
    peer = _details(body).get("peer")
    return endpoint | ({"uid": peer} if isinstance(peer, str) and peer else {})


def _api_activity(stored: StoredRecord, body: Json, type_: str) -> Json:
    details = _details(body)
    api: Json = {"operation": str(details.get("operation") or type_)}
    if details.get("provider"):
        api["service"] = {"name": str(details["provider"])}
    if details.get("call"):
        api["request"] = {"uid": str(details["call"])}
    event: Json = {"actor": _actor(stored, body), "api": api, "src_endpoint": _endpoint(stored, body)}
    named = ((name, details.get(name)) for name in ("key", "model"))
    resources = [
        {"type": name, "name": value, "uid": value} for name, value in named if isinstance(value, str) and value
    ]
    return event | ({"resources": resources} if resources else {})


def _authorize_session(stored: StoredRecord, body: Json, type_: str) -> Json:
    scopes = _details(body).get("scopes")
    privileges = [_privilege(scope) for scope in scopes] if isinstance(scopes, list) and scopes else [type_]
    event: Json = {"user": _user(body), "privileges": privileges, "actor": _actor(stored, body)}
    if body.get("lease"):
        event["session"] = _session(body)
    return event


def _privilege(scope: object) -> str:
    if isinstance(scope, dict):
        return ":".join(str(scope[name]) for name in ("provider", "key") if scope.get(name)) or "scope"
    return str(scope)


def _authentication(stored: StoredRecord, body: Json, _type: str) -> Json:
    return {
        "user": _user(body),
        "service": {"name": "leasehold", "uid": stored.record.stream},
        "auth_protocol_id": 99,
        "auth_protocol": "workload token",
        "src_endpoint": _endpoint(stored, body),
    }


def _entity_management(stored: StoredRecord, body: Json, type_: str) -> Json:
    noun = type_.partition(".")[0]
    details = _details(body)
    named = body.get("lease") if noun in {"lease", "budget"} else details.get("key") or details.get("revocation")
    uid = str(named or details.get("epoch") or stored.record.stream)
    return {
        "entity": {"name": uid, "uid": uid, "type": noun},
        "actor": _actor(stored, body),
    }


def _detection_finding(stored: StoredRecord, body: Json, type_: str) -> Json:
    finding: Json = {
        "uid": _uid(stored),
        "title": _message(type_, body),
        "types": [type_],
        "created_time": body["wall_ms"],
    }
    event: Json = {"finding_info": finding, "resources": [{"type": "stream", "name": stored.record.stream}]}
    if body.get("lease"):
        event["resources"].append({"type": "lease", "uid": str(body["lease"]), "name": str(body["lease"])})
    if _subject(body):
        event["resources"].append({"type": "subject", "uid": _user(body)["name"], "name": _user(body)["name"]})
    return event


_PARTS: Mapping[int, Callable[[StoredRecord, Json, str], Json]] = {
    API_ACTIVITY: _api_activity,
    AUTHORIZE_SESSION: _authorize_session,
    ENTITY_MANAGEMENT: _entity_management,
    AUTHENTICATION: _authentication,
    DETECTION_FINDING: _detection_finding,
}
