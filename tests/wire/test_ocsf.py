"""The OCSF export, against the official schema of version 1.8: every type of event, however odd its content."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from tests.fakes.streams import Emitter

from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.wire import ocsf

SCHEMA = get_ocsf_schema("1.8.0")
CLASSES = {entry["uid"]: name for name, entry in SCHEMA["classes"].items()}
_built: dict[int, Draft202012Validator] = {}


def validator(class_uid):
    """The official schema of a class, built once."""
    if class_uid not in _built:
        schema = OcsfJsonSchemaEmbedded(SCHEMA).get_class_schema(CLASSES[class_uid].rsplit("/")[-1])
        _built[class_uid] = Draft202012Validator(schema)
    return _built[class_uid]


def exported(event):
    """What the export makes of an event, through JSON."""
    stored = StoredRecord(17, 1_700_000_000_500, Emitter().emit(event), event.type)
    return msgspec.json.decode(msgspec.json.encode(ocsf.ocsf_event(stored)))


def check(found):
    """Valid by the official schema, and by what the schema's JSON form leaves out: enumerations and constraints."""
    errors = [
        f"{'/'.join(map(str, error.instance_path))}: {error.message}"
        for error in validator(found["class_uid"]).iter_errors(found)
    ]
    assert errors == []
    entry = SCHEMA["classes"][CLASSES[found["class_uid"]]]
    attributes = entry["attributes"]
    for name in ("activity_id", "severity_id", "status_id"):
        assert str(found[name]) in attributes[name]["enum"], name
    assert attributes["status_id"]["enum"][str(found["status_id"])]["caption"] == found["status"]
    assert attributes["severity_id"]["enum"][str(found["severity_id"])]["caption"] == found["severity"]
    assert found["type_uid"] == found["class_uid"] * 100 + found["activity_id"]
    assert found["class_name"] == entry["caption"]
    assert found["category_name"] == SCHEMA["categories"]["attributes"][entry["category"]]["caption"]
    for rule, names in (entry.get("constraints") or {}).items():
        present = sum(name in found for name in names)
        assert present == 1 if rule == "just_one" else present >= 1


SUBJECT = Subject("https://idp.example", "agents/a", {"environment": "prod"})
DETAILS = {
    "key": "anthropic-prod",
    "provider": "anthropic",
    "operation": "messages.create",
    "model": "claude-haiku-5-5",
    "call": "c1",
    "peer": "uid:1000",
    "scopes": [{"provider": "anthropic", "key": "anthropic-prod"}],
    "expire_wall_ms": 1_700_000_100_000,
    "message": "because",
    "held": {"cost_micro_usd": 1200},
}


@pytest.mark.parametrize("type_", list(EventType))
@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_event_is_valid_ocsf(type_, outcome):
    """Rich and bare events of every type and outcome pass the official schema."""
    reason = None if outcome is Outcome.ALLOWED else Reason.BUDGET_EXHAUSTED
    check(exported(Event(type_, 1_700_000_000_000, outcome, reason, SUBJECT, "leases/a", "request-1", DETAILS)))
    check(exported(Event(type_, 1_700_000_000_000, outcome)))


@pytest.mark.parametrize(
    ("type_", "class_uid"),
    [
        (EventType.CALL_SETTLED, 6003),
        (EventType.LEASE_ACQUIRED, 3003),
        (EventType.LEASE_REVOKED, 3004),
        (EventType.IDENTITY_REFUSED, 3002),
        (EventType.BUDGET_THRESHOLD, 2004),
    ],
)
def test_each_of_the_five_classes_is_used(type_, class_uid):
    """The class says what kind of thing happened, and the record is named so that it can be found in the log."""
    found = exported(Event(type_, 1_700_000_000_000, Outcome.ALLOWED, None, SUBJECT, "leases/a", "r", DETAILS))
    assert found["class_uid"] == class_uid
    assert found["metadata"]["uid"] == "sidecar-1/e1/1"
    assert found["metadata"]["event_code"] == type_
    assert found["unmapped"]["details"]["held"] == {"cost_micro_usd": 1200}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@example(EventType.SIDECAR_STARTED, {"expire_wall_ms": False}, {})
@given(
    st.sampled_from([*EventType, "slice.granted", "finding.raised", "honeytoken.used", "nodot"]),
    st.dictionaries(st.sampled_from([*DETAILS, "epoch", "revocation", "other"]), JSON, max_size=5),
    st.dictionaries(st.sampled_from(["issuer", "subject", "labels"]), JSON, max_size=3),
)
def test_whatever_a_sidecar_writes_exports(type_, details, subject):
    """Details and subjects of any JSON, and types of a later version, still give valid OCSF."""
    body = {"type": type_, "wall_ms": 5, "outcome": "allowed", "details": details, "subject": subject, "lease": "l"}
    record = Emitter().put(msgspec.json.encode(body, order="sorted"))
    check(msgspec.json.decode(msgspec.json.encode(ocsf.ocsf_event(StoredRecord(1, 5, record)))))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"type":1,"wall_ms":1}', b'{"type":"x","wall_ms":"1"}'])
def test_what_is_no_event_is_refused(body):
    """A dropped body, or none that is an event, is told by its position."""
    with pytest.raises(ValueError, match="position 9"):
        ocsf.ocsf_event(StoredRecord(9, 5, Emitter().put(body)))


def test_a_broken_event_does_not_pass_the_judge():
    """The judge used here refuses what is wrong: a missing attribute, an unknown one, a wrong type."""
    good = exported(Event(EventType.CALL_ADMITTED, 5, Outcome.ALLOWED, None, SUBJECT, "leases/a", "r", DETAILS))
    for wrong in ({**good, "api": {}}, {**good, "nonsense": 1}, {**good, "time": "now"}):
        with pytest.raises(AssertionError):
            check(wrong)
