"""The reckoning notices when the two witnesses do not agree, and spoils copies the way it says."""

import json

import pytest

from leasehold.audit import Record, records_of, verify
from leasehold_broker.demo import accounts

TOKENS = {"input": 21, "cache_read": 0, "cache_write_5m": 0, "cache_write_1h": 0, "output": 2400, "reasoning": 0}
SERVED = {
    "provider": "anthropic",
    "operation": "messages",
    "model": "claude-haiku-5-5",
    "ended": "complete",
    "tokens": TOKENS,
}


def chained(events):
    """Events as an export of one sidecar."""
    previous, lines = bytes(32), []
    for number, event in enumerate(events, start=1):
        body = json.dumps(event, sort_keys=True, separators=(",", ":")).encode()
        bare = Record(number, "sidecar-a", "1-abc", number, previous, b"", body)
        previous = bare.computed_digest()
        lines.append(Record(number, "sidecar-a", "1-abc", number, bare.previous_digest, previous, body).line())
    return "\n".join(lines) + "\n"


@pytest.fixture
def export(tmp_path):
    """A log of one lease, a delegated one, and a call."""
    subject = {"subject": "agents/a", "issuer": "i"}
    caps = {"caps": {"cost_micro_usd": 5000}}
    usage = {"input": 21, "output": 2400}
    events = [
        {"type": "lease.acquired", "lease": "leases/1", "subject": subject, "details": {**caps, "parent": ""}},
        {"type": "lease.delegated", "lease": "leases/2", "subject": subject, "details": {**caps, "parent": "leases/1"}},
        {
            "type": "call.admitted",
            "lease": "leases/2",
            "details": {"call": "c", "provider": "anthropic", "model": "claude-haiku-5-5"},
        },
        {
            "type": "call.settled",
            "lease": "leases/2",
            "details": {
                "call": "c",
                "end": "finished",
                "charged": {"cost_micro_usd": accounts.cost_of(SERVED)},
                "usage": usage,
            },
        },
        {"type": "call.refused", "lease": "leases/1", "details": {}},
        {"type": "lease.released", "lease": "leases/2", "details": {}},
    ]
    path = tmp_path / "audit.jsonl"
    path.write_text(chained(events))
    return path


def test_leases_are_summed_up(export):
    """Calls, refusals, spend and state per lease; a parent answers for those delegated from it."""
    told = accounts.read_export(export)

    parent, child = told.leases["leases/1"], told.leases["leases/2"]
    assert (parent.calls, parent.refused, parent.spent, parent.state) == (0, 1, 0, "active")
    assert (child.calls, child.spent, child.state) == (1, accounts.cost_of(SERVED), "released")
    assert told.of_tree("leases/1") == child.spent


def test_agreement_is_call_by_call(export):
    """Both witnesses say the same of the same call."""
    [compared] = accounts.compare(accounts.read_export(export), [SERVED])

    assert compared.call_by_call
    assert compared.served == compared.charged > 0


@pytest.mark.parametrize(
    "book",
    [
        [SERVED, SERVED],
        [{**SERVED, "tokens": {**TOKENS, "output": 2401}}],
        [{**SERVED, "model": "claude-haiku-4-5"}],
    ],
)
def test_disagreement_is_noticed(export, book):
    """One call more, one token more or another model: the witnesses do not agree."""
    assert not all(each.call_by_call for each in accounts.compare(accounts.read_export(export), book))


def test_what_is_free_or_cut_is_not_compared(export):
    """Counting tokens and broken calls are left out."""
    book = [SERVED, {**SERVED, "operation": "count_tokens"}, {**SERVED, "ended": "client_gone"}]
    assert [each.calls for each in accounts.compare(accounts.read_export(export), book)] == [1] * 1


def test_an_unknown_model_has_no_cost():
    """The price table decides, not a guess."""
    with pytest.raises(LookupError):
        accounts.cost_of({**SERVED, "model": "claude-unknown"})


def test_a_tampered_copy_is_one_that_breaks(export, tmp_path):
    """The copy differs in one charge, and its chain is broken there and nowhere before."""
    copy = tmp_path / "copy.jsonl"

    changed = accounts.tampered(export, copy)

    assert "line 4" in changed
    verdict = verify(records_of(copy.read_text().splitlines()))
    assert verdict.flaw is not None
    assert verdict.flaw.where.startswith("line 4 ")
    assert verify(records_of(export.read_text().splitlines())).holds
